"""Small wheels and sdists, made on the spot."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy of this"
GPL = "GNU GENERAL PUBLIC LICENSE Version 3, 29 June 2007"

Maker = Callable[..., Path]


@pytest.fixture
def make_wheel(tmp_path: Path) -> Maker:
    """Writes NAME-VERSION-py3-none-any.whl with these files, MIT unless told otherwise."""

    def make(
        name: str = "alpha",
        files: dict[str, str | bytes] | None = None,
        *,
        version: str = "1.0",
        metadata: str = "License-Expression: MIT\n",
        licenses: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for inside, content in (files or {}).items():
                archive.writestr(inside, content)
            headers = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}"
            archive.writestr(f"{info}/METADATA", headers)
            for inside, text in ({"LICENSE": MIT} if licenses is None else licenses).items():
                archive.writestr(f"{info}/licenses/{inside}", text)
        return path

    return make


@pytest.fixture
def make_sdist(tmp_path: Path) -> Maker:
    """Writes NAME-VERSION.tar.gz; a value of None makes the member a symlink."""

    def make(
        name: str = "alpha",
        files: dict[str, str | bytes | None] | None = None,
        *,
        version: str = "1.0",
        suffix: str = ".tar.gz",
    ) -> Path:
        root = f"{name}-{version}"
        headers = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense: MIT\n"
        members = {f"{root}/{k}": v for k, v in (files or {}).items()}
        members |= {f"{root}/PKG-INFO": headers, f"{root}/LICENSE": MIT}
        path = tmp_path / f"{root}{suffix}"
        if suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                for inside, content in members.items():
                    archive.writestr(inside, content or "")
            return path
        with gzip.open(path, "wb") as unpacked, tarfile.open(fileobj=unpacked, mode="w|") as tar:
            for inside, content in members.items():
                member = tarfile.TarInfo(inside)
                if content is None:
                    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                    tar.addfile(member)
                    continue
                data = content if isinstance(content, bytes) else content.encode()
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return path

    return make


def module(seed: int, functions: int = 12) -> str:
    """A Python module that passes every filter and resembles no other."""
    rng = Random(seed)

    def word() -> str:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7))

    body = (
        f"def {word()}({word()}, {word()}):\n    return {word()}({word()}) + {word()}.{word()}\n"
        for _ in range(functions)
    )
    return "\n\n".join(body)
