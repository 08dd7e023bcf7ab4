"""Samples that grow in files are what the safetensors library writes of them as a whole."""

import numpy as np
import pytest
from safetensors.numpy import save

from mbench.core.errors import PluginError
from mbench.core.run_record import CorpusProfile
from mbench.storage.sample_files import SampleFiles
from mbench.storage.store import Key, Store

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "c8", "?"]
SHAPES = ((), (3,), (2, 2))
KEY = Key.of("statistics", "sample", {"what": "a sample"})


def arrays_of(layer, rows):
    generator = np.random.default_rng(layer)
    return {
        f'{"zyx"[number % 3]}"é{number}': (
            100 * generator.random((rows, *SHAPES[number % 3]))
        ).astype(dtype)
        for number, dtype in enumerate(DTYPES)
    }


def filled(files, rows, layers=3):
    """Three batches of every layer, one of them empty."""
    for part in (slice(0, 2), slice(2, 2), slice(2, None)):
        for layer in range(layers):
            whole = arrays_of(layer, rows)
            files.append(layer, {name: array[part] for name, array in whole.items()})
    return files.finish()


@pytest.mark.parametrize("rows", [0, 7])
@pytest.mark.parametrize("announced", [True, False])
def test_files_are_byte_for_byte_those_of_the_library(tmp_path, rows, announced):
    folder = tmp_path / "sample"
    folder.mkdir()
    sample = filled(SampleFiles(folder, rows if announced else None), rows)
    names = [f"layer-00{layer}.safetensors" for layer in range(3)]
    assert sorted(path.name for path in folder.iterdir()) == names
    for layer, name in enumerate(names):
        assert (folder / name).read_bytes() == save(arrays_of(layer, rows))
    for name, of_layers in sample.items():
        for layer, array in enumerate(of_layers):
            np.testing.assert_array_equal(array, arrays_of(layer, rows)[name])
    del sample
    assert not folder.exists()


@pytest.mark.parametrize("announced", [True, False])
def test_the_store_keeps_them_and_reads_them_without_copying(tmp_path, announced):
    stores = [Store(tmp_path / name) for name in ("grown", "whole")]
    sample = filled(stores[0].new_sample(7 if announced else None), 7)
    whole = {name: [arrays_of(n, 7)[name] for n in range(3)] for name in arrays_of(0, 7)}
    for store, samples in zip(stores, (sample, whole), strict=True):
        store.write_statistic(KEY, CorpusProfile(1), {"a": np.ones((1, 3, 2))}, samples)
    sample.discard()
    trees = [{p.name: p.read_bytes() for p in store.path(KEY).iterdir()} for store in stores]
    assert trees[0] == trees[1]
    assert [path.name for path in (tmp_path / "grown" / "statistics").iterdir()] == [KEY.digest]
    read = stores[0].read_samples(KEY, 2)
    for name, array in read.items():
        np.testing.assert_array_equal(array, whole[name][2])
        with pytest.raises(ValueError, match="read-only"):
            array[:1] = 0


def test_other_numbers_of_tokens_and_other_shapes_are_named(tmp_path):
    def files(name, rows):
        (tmp_path / name).mkdir()
        return SampleFiles(tmp_path / name, rows)

    with pytest.raises(PluginError, match="'x' has more than the 3 tokens"):
        files("more", 3).append(0, {"x": np.zeros(4)})
    short = files("fewer", 3)
    short.append(0, {"x": np.zeros(2)})
    with pytest.raises(PluginError, match="'x' has 2 tokens, not the 3"):
        short.finish()
    other = files("other", None)
    other.append(0, {"x": np.zeros((2, 3))})
    for changed in (np.zeros((2, 4)), np.zeros((2, 3), dtype=np.float32)):
        with pytest.raises(PluginError, match=r"'x' has shape .* only the first dimension"):
            other.append(0, {"x": changed})
    with pytest.raises(PluginError, match="numbers of type complex128"):
        files("kind", None).append(0, {"x": np.zeros(2, dtype=complex)})
