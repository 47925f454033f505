"""The commands ``corpus`` and ``tokenizer``, from wheels to token shards."""

import pytest
from typer.testing import CliRunner

from tinystarcoder.cli import corpus, tokenizer
from tinystarcoder.corpus.parquet import read_documents
from tinystarcoder.corpus.token_shards import TokenShards
from tinystarcoder.errors import CorpusError, TokenizerError
from tinystarcoder.tokenizer import Tokenizer

from .conftest import module


def invoke(app, *arguments) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_from_wheels_to_tokens(make_wheel, tmp_path):
    folder = tmp_path / "own"
    (folder / "test").mkdir(parents=True)
    (folder / "f.py").write_text(module(7))
    (folder / "test" / "t.py").write_text(module(8))
    alpha = make_wheel("alpha", {f"m{n}.py": module(n) for n in range(4)} | {"__init__.py": ""})
    gnu = make_wheel("gnu", {"g.py": module(9)}, metadata="License: GPLv3\n")
    held_out = make_wheel("held_out", {"x.py": module(3)})
    made = tmp_path / "made"

    said = invoke(
        corpus.app,
        *("build", alpha, gnu, folder, "--output", made / "corpus", "--license", "PSF-2.0"),
        *("--exclude", held_out, "--skip", "test", "--jobs", 1),
    )
    assert "4 files of 2 packages" in said
    assert " 1 dropped: exact duplicate of excluded" in said
    assert "set aside: gnu-1.0-py3-none-any.whl: license not permissive: GPL-3.0-only" in said
    texts = [document.text for document in read_documents(made / "corpus")]
    assert texts == [module(0), module(1), module(2), module(7)]

    invoke(
        tokenizer.app,
        *("train", made / "corpus", "--output", made / "tokenizer", "--vocab-size", 300),
    )
    assert Tokenizer.from_folder(made / "tokenizer").vocab_size == 300
    with pytest.raises(TokenizerError, match="tokenizer: exists; remove it or choose another"):
        invoke(
            tokenizer.app,
            *("train", made / "corpus", "--output", made / "tokenizer", "--vocab-size", 290),
        )
    assert Tokenizer.from_folder(made / "tokenizer").vocab_size == 300

    said = invoke(
        corpus.app,
        *("tokenize", made / "corpus", "--tokenizer", made / "tokenizer"),
        *("--output", made / "tokens"),
    )
    shards = TokenShards.open(made / "tokens")
    assert f"{shards.num_tokens} tokens of 4 documents" in said
    assert shards.num_bytes == sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("sample_bytes", [1, 3000, 10**9])
def test_a_sample_is_spread_over_the_corpus(make_wheel, tmp_path, sample_bytes):
    wheel = make_wheel(files={f"m{n}.py": module(n) for n in range(20)})
    invoke(corpus.app, "build", wheel, "--output", tmp_path / "corpus", "--jobs", 1)
    size = len(module(0).encode())
    texts = list(tokenizer._texts(tmp_path / "corpus", sample_bytes))
    assert abs(len(texts) - min(20, sample_bytes / size)) <= 1
    assert len(set(texts)) == len(texts)


def test_errors_are_raised_for_the_caller_to_print(tmp_path):
    with pytest.raises(CorpusError, match="no such source"):
        invoke(corpus.app, "build", tmp_path / "gone.whl", "--output", tmp_path / "corpus")
