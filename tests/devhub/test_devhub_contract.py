"""What the hub answers, against what git and DVC hold."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.repos import (
    Truth,
    add_legacy_file,
    big_directory,
    commit_all,
    directories_of,
    dos2unix_md5,
    git,
    new_repository,
    write_files,
)

from dagfs.devhub.serve import Hub


def walk(call, ref: str, path: str = "", *, sized: bool = False) -> dict[str, dict]:
    """List a commit recursively: path -> entry."""
    found = {}
    for entry in call.listing(ref, path, sized=sized):
        found[entry["path"]] = entry
        if entry["type"] == "dir" and call.get("content", ref, entry["path"]).status_code == 200:
            found |= walk(call, ref, entry["path"], sized=sized)
    return found


@pytest.fixture(params=["head", "first"])
def commit(request: pytest.FixtureRequest, sample: Truth) -> str:
    return sample.head if request.param == "head" else sample.tags["v1"]


def test_every_file_of_a_commit_is_listed_and_nothing_else(call, sample: Truth, commit: str) -> None:
    entries = walk(call, commit)
    files = {path for path, entry in entries.items() if entry["type"] == "file"}
    folders = {path for path, entry in entries.items() if entry["type"] == "dir"}
    assert files == set(sample.commits[commit])
    assert folders == directories_of([*files, *(f"{path}/x" for path in sample.submodules)]) - {""}


def test_every_byte_is_the_commits(call, sample: Truth, commit: str) -> None:
    wrong = [path for path, data in sample.commits[commit].items() if call.raw(commit, path).content != data]
    assert wrong == []


def test_sizes_are_true_when_asked_for_and_0_otherwise(call, sample: Truth) -> None:
    sized = walk(call, sample.head, sized=True)
    assert {path: sized[path]["size"] for path in sample.files} == {k: len(v) for k, v in sample.files.items()}
    assert {entry["size"] for entry in walk(call, sample.head).values()} == {0}


def test_the_hash_of_a_dvc_file_is_its_md5_and_of_a_git_file_its_blob(call, sample: Truth) -> None:
    entries = walk(call, sample.head)
    for path, data in sample.files.items():
        entry = entries[path]
        if path in sample.dvc[sample.head]:
            legacy_text = path == "legacy/dos.txt"
            assert entry["hash"] == (dos2unix_md5(data) if legacy_text else hashlib.md5(data).hexdigest()), path
            assert entry["versioning"] == "dvc"
        else:
            assert entry["hash"] == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), path
            assert entry["versioning"] == "git"


def test_a_dvc_directory_has_the_hash_of_its_manifest_and_those_inside_have_none(call, sample: Truth) -> None:
    entries = walk(call, sample.head)
    pointer = sample.files["images.dvc"].decode()
    assert entries["images"]["hash"].endswith(".dir")
    assert entries["images"]["hash"] in pointer
    assert {entries[path]["hash"] for path in ("images/sub", "images/sub/deeper", "images/new")} == {""}
    assert entries["pipeline/out"]["versioning"] == "dvc"
    assert entries["pipeline/metrics.txt"]["versioning"] == "git"


def test_a_file_is_listed_as_an_object_and_a_missing_path_is_404(call, sample: Truth) -> None:
    entry = call.get("content", sample.head, "images/001.jpg").json()
    assert (entry["path"], entry["type"], entry["size"]) == ("images/001.jpg", "file", 0)
    sized = call.get("content", sample.head, "README.md", params={"include_size": "True"}).json()
    assert sized["size"] == len(sample.files["README.md"])
    for path in (
        "nothing",
        "images/nothing",
        "README.md/below",
        "images/001.jpg/below",
    ):
        assert call.session.get(f"{call.api}/content/{sample.head}/{path}", timeout=30).status_code == 404
        assert call.get("raw", sample.head, path).status_code == 404


def test_a_directory_and_a_submodule_have_no_bytes_and_a_submodule_no_listing(call, sample: Truth) -> None:
    assert [call.raw(sample.head, path).status_code for path in ("deep", "images", "vendor/library")] == [404] * 3
    assert call.get("content", sample.head, "vendor/library").status_code == 404


def test_the_root_is_named_by_nothing_or_a_dot(call, sample: Truth) -> None:
    assert call.listing(sample.head, "") == call.listing(sample.head, ".")
    assert len(call.get("content/" + sample.head).json()) == len(call.listing(sample.head, ""))


def test_a_ref_is_a_branch_a_tag_or_a_sha_of_5_to_40_digits(call, sample: Truth) -> None:
    for name, sha in [*sample.branches.items(), *sample.tags.items(), (sample.head[:5], sample.head)]:
        assert call.raw(name, "README.md").content == sample.commits[sha]["README.md"], name
        assert {e["hash"] for e in call.listing(name, "images")} == {e["hash"] for e in call.listing(sha, "images")}
    for name in ("nothing", "0" * 40, sample.head[:4], "feature", "feature/with", "main~1", "HEAD", "main\nmain"):
        assert call.raw(name, "README.md").status_code == 404, name


def test_branches_and_commits_are_described(call, sample: Truth) -> None:
    assert {b["name"]: b["commit"]["id"] for b in call.get("branches").json()} == dict(sample.branches)
    for name, sha in sample.branches.items():
        branch = call.get(f"branches/{name}").json()
        assert (branch["name"], branch["commit"]["id"]) == (name, sha)
    assert call.get("branches/v1").status_code == 404
    for name in (sample.head, sample.head[:7], "light", "main"):
        commit = call.get(f"commits/{name}").json()["commit"]
        assert (commit["id"], commit["message"]) == (sample.head, "Second commit\n")
        assert commit["timestamp"] == "2023-11-15T22:13:20Z"
        assert commit["author"] == {"name": "Ada", "email": "ada@example.org", "username": ""}
    files = {row["filename"] for row in call.get(f"commits/{sample.head}").json()["files"]}
    assert files == {"README.md", "added.txt", "docs/notes.md", "images.dvc", "model.bin.dvc"}
    assert call.get("commits/nothing").status_code == 404


def test_repository_and_people_are_described(call, hub: Hub) -> None:
    repository = call.session.get(call.api, timeout=30).json()
    assert (repository["full_name"], repository["default_branch"]) == (hub.name, "main")
    assert (repository["private"], repository["empty"]) == (False, False)
    assert repository["size"] > 1 << 20
    assert call.session.get(f"{hub.host}/api/v1/user", timeout=30).json()["login"] == "local"
    assert call.session.get(f"{hub.host}/api/v1/users/local", timeout=30).json()["username"] == "local"
    for path in ("users/other", "repos/local/other", "repos/local", f"repos/{hub.name}x", f"repos/{hub.name}/other"):
        assert call.session.get(f"{hub.host}/api/v1/{path}", timeout=30).status_code == 404


def test_a_download_url_leads_to_the_bytes_of_the_ref_asked(call, sample: Truth) -> None:
    for path in ("odd git", "odd dvc", "images"):
        for entry in call.listing("main", path):
            if entry["type"] == "file":
                assert "/raw/main/" in entry["download_url"]
                assert call.session.get(entry["download_url"], timeout=30).content == sample.files[entry["path"]]


def test_bytes_come_from_the_commit_and_not_from_the_working_tree(
    caller_of: Callable, copy: Path, sample: Truth
) -> None:
    (copy / "README.md").write_bytes(b"dirty")
    (copy / "model.bin").write_bytes(b"dirty")
    (copy / "untracked").write_bytes(b"untracked")
    (copy / "images.dvc").unlink()
    git(copy, "add", "-A")
    with Hub(copy) as hub:
        call = caller_of(hub)
        assert call.raw("main", "README.md").content == sample.files["README.md"]
        assert call.raw("main", "model.bin").content == sample.files["model.bin"]
        assert call.raw("main", "untracked").status_code == 404
        assert set(walk(call, "main")) >= {"images/001.jpg", "images.dvc"}


def test_a_branch_that_moves_is_seen_at_once(caller_of: Callable, tmp_path: Path) -> None:
    root = new_repository(tmp_path / "moving")
    write_files(root, {"a": b"one"})
    first = commit_all(root, "one")
    with Hub(root) as hub:
        call = caller_of(hub)
        assert call.raw("main", "a").content == b"one"
        write_files(root, {"a": b"two", "b": b"new"})
        second = commit_all(root, "two")
        assert call.raw("main", "a").content == b"two"
        assert [e["path"] for e in call.listing("main")] == ["a", "b"]
        assert [call.raw(sha, "a").content for sha in (first, second)] == [b"one", b"two"]
        git(root, "pack-refs", "--all")
        git(root, "gc", "-q")
        assert call.get("branches/main").json()["commit"]["id"] == second
        assert call.raw(first[:8], "a").content == b"one"


def test_a_bare_repository_is_served_with_the_cache_inside_it(
    caller_of: Callable, tmp_path: Path, sample: Truth
) -> None:
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "-q", "--bare", str(sample.path), str(bare))
    (bare / ".dvc").mkdir()
    (bare / ".dvc/cache").symlink_to(sample.path / ".dvc/cache")
    with Hub(bare) as hub:
        assert hub.name == "local/bare"
        call = caller_of(hub)
        for path in ("images/001.jpg", "legacy/dos.txt", "README.md"):
            assert call.raw("main", path).content == sample.files[path]


def test_a_cache_elsewhere_is_found_by_dvcs_settings(caller_of: Callable, copy: Path, sample: Truth) -> None:
    (copy / ".dvc/cache").rename(copy.parent / "elsewhere")
    config = (
        "['remote \"origin\"']\n    url = https://host.example\n    auth = basic\n[cache]\n    dir = ../../elsewhere\n"
    )
    (copy / ".dvc/config.local").write_text(config)
    with Hub(copy) as hub:
        assert caller_of(hub).raw("main", "model.bin").content == sample.files["model.bin"]


def test_content_that_the_cache_lacks_is_listed_and_is_404_until_it_is_there(caller_of: Callable, copy: Path) -> None:
    digest = hashlib.md5((copy / "images/002.jpg").read_bytes()).hexdigest()
    stored = copy / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    data = stored.read_bytes()
    stored.unlink()
    with Hub(copy) as hub:
        call = caller_of(hub)
        sizes = {e["path"]: e["size"] for e in call.listing("main", "images", sized=True)}
        assert sizes["images/002.jpg"] == 0
        assert call.raw("main", "images/002.jpg").status_code == 404
        stored.write_bytes(data)
        sizes = {e["path"]: e["size"] for e in call.listing("main", "images", sized=True)}
        assert sizes["images/002.jpg"] == len(data)
        assert call.raw("main", "images/002.jpg").content == data


def test_a_directory_whose_manifest_is_missing_is_listed_and_cannot_be_entered(caller_of: Callable, copy: Path) -> None:
    for manifest in (copy / ".dvc/cache/files/md5").glob("*/*.dir"):
        manifest.unlink()
    with Hub(copy) as hub:
        call = caller_of(hub)
        assert "images" in [e["path"] for e in call.listing("main")]
        assert call.get("content", "main", "images").status_code == 404
        assert call.raw("main", "images/001.jpg").status_code == 404


def test_a_broken_pointer_hides_its_own_data_only(caller_of: Callable, copy: Path, sample: Truth) -> None:
    write_files(copy, {"broken.dvc": b"outs: [", "model.bin.dvc": b"- not a mapping\n"})
    commit_all(copy, "break")
    with Hub(copy) as hub:
        call = caller_of(hub)
        assert call.raw("main", "broken.dvc").content == b"outs: ["
        assert call.raw("main", "model.bin").status_code == 404
        assert call.raw("main", "images/001.jpg").content == sample.files["images/001.jpg"]


def test_what_a_manifest_or_pointer_says_of_places_outside_is_ignored(caller_of: Callable, tmp_path: Path) -> None:
    root = new_repository(tmp_path / "hostile")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    add_legacy_file(root, "inside.bin", b"inside")
    write_files(root, {"up.dvc": b"outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e\n  path: ../secret\n"})
    commit_all(root, "hostile")
    with Hub(root) as hub:
        call = caller_of(hub)
        assert {"inside.bin", "inside.bin.dvc", "up.dvc"} <= set(walk(call, "main"))
        assert not any("secret" in path for path in walk(call, "main"))


def test_a_name_that_is_not_utf8_is_lossy_in_json_and_exact_in_its_url(caller_of: Callable, tmp_path: Path) -> None:
    root = new_repository(tmp_path / "bytes")
    names = {b"latin-\xe9.txt": "latin-\ufffd.txt", b"cut-\xe2\x82": "cut-\ufffd\ufffd"}
    for name in names:
        with open(os.path.join(os.fsencode(root), name), "wb") as file:
            file.write(name)
    commit_all(root, "bytes")
    with Hub(root) as hub:
        call = caller_of(hub)
        assert sorted(e["path"] for e in call.listing("main")) == sorted(names.values())
        for entry in call.listing("main"):
            assert names[call.session.get(entry["download_url"], timeout=30).content] == entry["path"]
        assert all(call.raw("main", name).content == name for name in names)


def test_a_listing_of_many_files_is_whole_and_rendered_once(caller_of: Callable, tmp_path: Path) -> None:
    truth = big_directory(tmp_path / "big", 20_000, distinct=50)
    with Hub(truth.path) as hub:
        call = caller_of(hub)
        first = call.get("content", truth.head, "data").content
        assert first == call.get("content", truth.head, "data").content
        assert first.count(b'"path":"data/') == 20_000
        assert {e["size"] for e in call.listing(truth.head, "data", sized=True)} == {200}


def test_a_large_blob_is_read_from_git_once(caller_of: Callable, sample: Truth) -> None:
    with Hub(sample.path) as hub:
        call = caller_of(hub)
        data = sample.files["large.bin"]
        for start in range(0, len(data), 1 << 20):
            span = f"bytes={start}-{start + (1 << 20) - 1}"
            assert call.raw("main", "large.bin", Range=span).content == data[start : start + (1 << 20)]
        assert call.raw("main", "large.bin").content == data


def test_a_directory_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    from dagfs.errors import UsageError

    with pytest.raises(UsageError, match="not a git repository"):
        Hub(tmp_path)


def test_an_empty_repository_is_served_as_empty(caller_of: Callable, tmp_path: Path) -> None:
    with Hub(new_repository(tmp_path / "empty")) as hub:
        call = caller_of(hub)
        assert call.session.get(call.api, timeout=30).json()["empty"] is True
        assert call.get("branches").json() == []
        assert call.get("content", "main").status_code == 404


def test_git_symlinks_are_files_with_their_targets_text(call, sample: Truth) -> None:
    shown = subprocess.run(
        ["git", "show", "HEAD:links/to-directory"], cwd=sample.path, check=True, capture_output=True
    ).stdout
    assert call.raw("main", "links/to-directory").content == shown == b"../deep"
    assert {e["type"] for e in call.listing("main", "links")} == {"file"}
