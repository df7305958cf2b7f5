"""Every failure is typed, says what was found, and leaves the process alive."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HISTORIES

import slmrec
from slmrec import _library


def test_the_hierarchy() -> None:
    names = [name for name in slmrec.__all__ if name.endswith("Error")]
    assert len(names) == 9
    for name in names:
        assert issubclass(getattr(slmrec, name), slmrec.SlmrecError)
        assert getattr(slmrec, name).__module__ == "slmrec"
    assert issubclass(slmrec.BundleNotFoundError, FileNotFoundError)
    assert issubclass(slmrec.HistoryError, ValueError)


def test_a_bundle_that_is_not_there(bundles: Path) -> None:
    with pytest.raises(slmrec.BundleNotFoundError, match="none.slmrec"):
        slmrec.Recommender(bundles / "none.slmrec")


def test_a_damaged_bundle(bundles: Path, tmp_path: Path) -> None:
    whole = (bundles / "fp32.slmrec").read_bytes()
    path = tmp_path / "damaged.slmrec"
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0x20
    for damaged in (b"", b"not a bundle", whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(slmrec.BundleError, match="damaged.slmrec"):
            slmrec.Recommender(path)
    with pytest.raises(slmrec.BundleError):
        slmrec.Recommender(tmp_path)


def test_histories_without_an_answer(recommender: slmrec.Recommender) -> None:
    with pytest.raises(slmrec.HistoryError, match="empty"):
        recommender.recommend([])
    with pytest.raises(slmrec.HistoryError, match="nonsense"):
        recommender.recommend(["nonsense"])


@pytest.mark.parametrize("wrong", ["item-1", b"item-1", 3, None, [1.5], [None], [True], [["a"]]])
def test_what_is_no_history(recommender: slmrec.Recommender, wrong: object) -> None:
    for call in (
        recommender.recommend,
        recommender.user_vector,
        recommender.history_state,
        lambda history: recommender.score(history, ["item-1"]),
        lambda ids: recommender.explain(HISTORIES[0], ids),
        lambda ids: recommender.recommend(HISTORIES[0], block=ids),
    ):
        with pytest.raises(TypeError, match="expected|iterable"):
            call(wrong)  # type: ignore[arg-type]


def test_arguments_out_of_range(bundles: Path, recommender: slmrec.Recommender) -> None:
    with pytest.raises(ValueError, match="threads"):
        slmrec.Recommender(bundles / "fp32.slmrec", threads=0)
    with pytest.raises(ValueError, match="expected one of auto, cpu"):
        slmrec.Recommender(bundles / "fp32.slmrec", provider="tpu")  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        recommender.recommend(HISTORIES[0], -1)
    with pytest.raises(ValueError, match="max_reasons"):
        recommender.explain(HISTORIES[0], [], max_reasons=0)
    assert recommender.recommend(HISTORIES[0], 0) == []


def test_a_provider_that_is_not_there(bundles: Path) -> None:
    with pytest.raises(slmrec.EngineError, match="coreml"):
        slmrec.Recommender(bundles / "fp32.slmrec", provider="coreml")


def test_libraries(bundles: Path, tmp_path: Path) -> None:
    other = tmp_path / "libonnxruntime.so"
    other.write_bytes(b"not a library")
    with slmrec.Recommender(bundles / "fp32.slmrec", library=_library.find(None)):
        pass
    with pytest.raises(slmrec.LibraryError, match="already loaded"):
        slmrec.Recommender(bundles / "fp32.slmrec", library=other)
    # What happens in a process that has loaded none.
    for library, message in [
        (other, "not a usable ONNX Runtime library"),
        (tmp_path / "none", "no such file"),
    ]:
        code = f"import slmrec; slmrec.Recommender({str(bundles / 'fp32.slmrec')!r})"
        environment = {**os.environ, _library.VARIABLE: str(library)}
        ended = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 1
        assert "slmrec.LibraryError" in ended.stderr
        assert message in ended.stderr


def test_which_library_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_library.VARIABLE, raising=False)
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None and spec.origin is not None
    assert _library.find(None).parent == Path(spec.origin).parent / "capi"
    assert _library.find("mine.so") == Path("mine.so")
    monkeypatch.setenv(_library.VARIABLE, "variable.so")
    assert _library.find(None) == Path("variable.so")
    assert _library.find("mine.so") == Path("mine.so")
    monkeypatch.delenv(_library.VARIABLE)
    for name in ["libonnxruntime.so.1.9.2", "libonnxruntime.so.1.31.1", "libother.so", "x.py"]:
        (tmp_path / name).touch()
    monkeypatch.setattr(_library, "_package", lambda: tmp_path)
    assert _library.find(None).name == "libonnxruntime.so.1.31.1"
    monkeypatch.setattr(_library, "_package", lambda: tmp_path / "none")
    with pytest.raises(slmrec.LibraryError, match="pip install onnxruntime"):
        _library.find(None)
    monkeypatch.setattr(_library, "_package", lambda: None)
    with pytest.raises(slmrec.LibraryError, match="pip install onnxruntime"):
        _library.find(None)


def test_telemetry_is_off_and_the_package_onnxruntime_is_not_imported(bundles: Path) -> None:
    code = f"""
import os, sys, slmrec
recommender = slmrec.Recommender({str(bundles / "fp32.slmrec")!r})
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
assert "onnxruntime" not in sys.modules
import onnxruntime
assert len(recommender.recommend(["item-1"])) == 10
print("fine")
"""
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "fine\n"), ended.stderr


def test_use_after_close(bundles: Path) -> None:
    recommender = slmrec.Recommender(bundles / "fp32.slmrec")
    with recommender as same:
        assert same is recommender
    recommender.close()
    for call in (
        lambda: recommender.recommend(HISTORIES[0]),
        lambda: recommender.recommend_batch(HISTORIES),
        lambda: recommender.items,
        lambda: recommender.engine,
    ):
        with pytest.raises(slmrec.ClosedError):
            call()


def test_it_cannot_be_pickled(recommender: slmrec.Recommender) -> None:
    with pytest.raises(TypeError, match="open one in each process"):
        pickle.dumps(recommender)
    answer = recommender.recommend(HISTORIES[0])
    assert pickle.loads(pickle.dumps(answer)) == answer
    error = pickle.loads(pickle.dumps(slmrec.HistoryError("why")))
    assert (type(error), str(error)) == (slmrec.HistoryError, "why")


def test_a_panic_is_an_exception_and_the_recommender_is_given_up(bundles: Path) -> None:
    recommender = slmrec.Recommender(bundles / "fp32.slmrec")
    state = recommender.history_state(HISTORIES[0])
    if not hasattr(recommender._native, "panic"):
        pytest.skip("a release build has no call that panics")
    for call in (
        recommender._native.panic,
        lambda: recommender.recommend(HISTORIES[0]),
        state.recommend,
    ):
        with pytest.raises(slmrec.InternalError, match="asked to"):
            call()
    with slmrec.Recommender(bundles / "fp32.slmrec") as another:
        assert another.recommend(HISTORIES[0])
