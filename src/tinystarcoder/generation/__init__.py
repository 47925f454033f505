"""From logits to text: choosing tokens, and three depths of generation."""
