import pytest

from tests.browser import running


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium, one for all tests."""
    with running(tmp_path_factory.mktemp("browser")) as found:
        yield found
