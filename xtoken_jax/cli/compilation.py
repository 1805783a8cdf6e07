"""Where compiled steps are kept."""


def use_compilation_cache() -> None:
    """Keep compiled steps beside the assets, so that the next start is quick."""
    import jax

    from xtoken_jax.text.assets import cache_directory

    # None unless JAX_COMPILATION_CACHE_DIR or a caller has set it.
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "jax"))
