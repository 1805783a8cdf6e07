"""References: directories, assets and hub ids; nothing here reaches the network."""

import pytest
from huggingface_hub import errors as hub_errors

from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.text import references
from xtoken_jax.text.references import resolve


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Replaces the hub: records the call, then raises or returns what the test set."""

    class Hub:
        def __init__(self):
            self.calls = []
            self.error = None

        def snapshot_download(self, repo_id, **options):
            self.calls.append((repo_id, options))
            if self.error:
                raise self.error
            return str(tmp_path)

    hub = Hub()
    monkeypatch.setattr(references, "snapshot_download", hub.snapshot_download)
    return hub


def http_error(kind: type) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, "401 Client Error.\n\nCannot access repository")
    return error


def test_directory_is_taken_as_it_is(tmp_path, hub):
    assert resolve(str(tmp_path)) == tmp_path
    assert not hub.calls


def test_directory_wins_over_a_hub_id_of_the_same_name(tmp_path, hub, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert resolve("owner/name").resolve() == tmp_path / "owner" / "name"
    assert not hub.calls


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model") == tmp_path / "model"


def test_asset_is_fetched(asset):
    assert resolve("asset:mistral-v3") == asset("mistral-v3")


def test_unknown_asset_names_the_known_ones():
    with pytest.raises(UsageError, match=r"llama3, .*did you mean 'qwen3'"):
        resolve("asset:qwen-3")


@pytest.mark.parametrize("reference", ["", "./absent", "/absent/model", "a/b/c", "owner/", "a b"])
def test_what_cannot_be_a_hub_id_never_reaches_the_hub(reference, hub):
    with pytest.raises(UsageError) as caught:
        resolve(reference)
    assert repr(reference) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not hub.calls


def test_a_file_is_not_a_directory(tmp_path):
    (tmp_path / "tokenizer.json").touch()
    with pytest.raises(UsageError, match="must be a directory, got a file"):
        resolve(str(tmp_path / "tokenizer.json"))


@pytest.mark.parametrize("weights", [True, False])
def test_hub_files_are_limited(hub, tmp_path, weights):
    assert resolve("owner/name", weights=weights) == tmp_path
    ((repo_id, options),) = hub.calls
    assert repo_id == "owner/name"
    patterns = options["allow_patterns"]
    assert ("*.safetensors" in patterns) == weights
    assert {"*.json", "*.model"} <= set(patterns)
    assert not {"*", "*.bin", "*.pt", "*.py"} & set(patterns)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (hub_errors.LocalEntryNotFoundError("offline"), XTokenError, "could not be reached"),
        (ConnectionError("no route"), XTokenError, "no route"),
        (http_error(hub_errors.HfHubHTTPError), XTokenError, "401 Client Error"),
        (http_error(hub_errors.GatedRepoError), XTokenError, "gated"),
        (http_error(hub_errors.RepositoryNotFoundError), UsageError, "check the spelling"),
        (hub_errors.HFValidationError("bad"), UsageError, "check the spelling"),
    ],
)
def test_hub_failures_are_one_line_that_names_the_reference(hub, error, kind, words):
    hub.error = error
    with pytest.raises(XTokenError) as caught:
        resolve("owner/name")
    assert type(caught.value) is kind
    assert "'owner/name'" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_offline_variable_is_honoured(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(XTokenError, match="could not be reached"):
        resolve("owner/name")
