"""Eight simulated devices, strict JAX, and the real assets."""

import os

# Most of a test's time is XLA's compiler, on programs that run once for a millisecond: LLVM's
# optimisations and the newer emitter of fusions cost five times what the rest does.
os.environ["XLA_FLAGS"] = (
    "--xla_cpu_use_fusion_emitters=false "
    + os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # tests fork

from pathlib import Path

import jax
import jaxtyping
import pytest

from xtoken_jax.errors import XTokenError

REPOSITORY = Path(__file__).resolve().parent.parent

# Said again here, since plugins of pytest have imported JAX before this file.
unoptimised = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
jax.config.update("jax_disable_most_optimizations", unoptimised)
jax.config.update("jax_numpy_rank_promotion", "raise")
# A directory for each process of pytest-xdist, since JAX writes its files without a lock.
worker = os.environ.get("PYTEST_XDIST_WORKER", "")
jax.config.update("jax_compilation_cache_dir", str(REPOSITORY / ".jax_cache" / worker))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture
def unchecked():
    """Turns the annotations' checks off, for what our own checks say of a wrong type."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def asset():
    """A function from an asset's name to its directory; skips, or fails on CI, without it."""

    def get(name: str) -> Path:
        from xtoken_jax.text.assets import fetch

        try:
            return fetch(name)
        except XTokenError as error:
            if os.environ.get("XTOKEN_REQUIRE_ASSETS") == "1":
                pytest.fail(f"asset {name} is required here: {error}")
            pytest.skip(f"asset {name} cannot be fetched: {error}")

    return get


@pytest.fixture(scope="session")
def tokenizer(asset):
    """A function from an asset's name to its `ByteTokenizer`, each loaded once."""
    from xtoken_jax.text import ByteTokenizer

    loaded = {}

    def get(name: str) -> ByteTokenizer:
        if name not in loaded:
            asset(name)
            loaded[name] = ByteTokenizer.load(f"asset:{name}")
        return loaded[name]

    return get
