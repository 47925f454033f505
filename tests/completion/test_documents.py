"""Which requests go on: each document's newest, until its block ends."""

from threading import Event

from tinystarcoder.completion.documents import Documents


def test_a_newer_request_cancels_the_older_of_the_same_document() -> None:
    documents = Documents()
    with documents.newest("a") as first, documents.newest("b") as other:
        assert not first.is_set()
        with documents.newest("a") as second:
            assert first.is_set() and not second.is_set() and not other.is_set()
        assert second.is_set()
    assert other.is_set()


def test_an_older_block_that_ends_leaves_the_newer_alone() -> None:
    documents = Documents()
    older = documents.newest("a")
    older.__enter__()
    with documents.newest("a") as newer:
        older.__exit__(None, None, None)
        assert not newer.is_set()
        with documents.newest("a"):
            assert newer.is_set()


def test_a_cancellation_of_ones_own_counts_too() -> None:
    gone = Event()
    with Documents().newest("a", gone) as current:
        assert not current.is_set()
        gone.set()
        assert current.is_set()


def test_all_are_cancelled_at_once() -> None:
    documents = Documents()
    with documents.newest("a") as one, documents.newest("b") as other:
        documents.cancel_all()
        assert one.is_set() and other.is_set()
        with documents.newest("a") as later:
            assert not later.is_set()
