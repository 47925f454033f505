"""The completion service over HTTP: one file a dialect, one service behind them."""
