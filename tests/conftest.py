"""The order of the tests."""

LONGEST = ("test_browser.py", "test_training.py", "test_spade_training.py", "test_cache.py")


def pytest_collection_modifyitems(items):
    """The longest modules first: no worker is left with one of them while the other rests."""
    items.sort(key=lambda item: (*LONGEST, item.path.name).index(item.path.name))
