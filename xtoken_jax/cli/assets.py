"""`xtoken assets`."""

from dataclasses import dataclass

from rich.table import Table

from xtoken_jax.cli.output import OUT, print_json


@dataclass(frozen=True)
class Assets:
    """List the real tokenizers and models that need no hub, and where they are."""

    fetch: tuple[str, ...] = ()
    """Names to fetch now."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        """Print the list."""
        from xtoken_jax.text.assets import fetch, list_assets

        for name in self.fetch:
            fetch(name)
        rows = [
            {
                "name": status.asset.name,
                "kind": status.asset.kind,
                "description": status.asset.description,
                "licence": status.asset.licence,
                "packages": status.asset.requirements,
                "download_bytes": status.asset.num_bytes,
                "path": str(status.path) if status.is_fetched else None,
            }
            for status in list_assets()
        ]
        if self.json:
            print_json(rows)
            return
        table = Table("name", "what", "licence", "download", "where")
        for row in rows:
            size = f"{row['download_bytes'] / 1e6:.1f} MB"
            table.add_row(
                f"asset:{row['name']}",
                row["description"],
                row["licence"],
                size,
                row["path"] or "not fetched",
            )
        OUT.print(table)
