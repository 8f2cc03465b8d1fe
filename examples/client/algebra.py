"""Array mathematics on a Mainstay: least squares, principal components and spectra of an array in blocks.

`python algebra.py [ADDRESS]`; needs `pip install "dask[complete]"`. The answers are checked against NumPy.
"""

import os
import sys

import dask.array as da
import numpy as np
from distributed import Client, wait

ROWS, COLUMNS = 100_000, 40


def main(address):
    with Client(address) as client:
        # Blocks of rows, as they would come from files; each is made on the worker that keeps it.
        noise = da.random.default_rng(2013)
        features = client.persist(noise.normal(size=(ROWS, COLUMNS), chunks=(5_000, COLUMNS)))
        weights = np.linspace(-1, 1, COLUMNS)
        answer = client.persist(features @ weights + noise.normal(scale=0.1, size=ROWS, chunks=5_000))
        wait([features, answer])

        q, r = da.linalg.qr(features)
        centred = features - features.mean(axis=0)
        _, scales, _ = da.linalg.svd(centred)
        # A spectrum needs whole columns: rechunking moves every block to all the others.
        spectrum = abs(da.fft.rfft(centred.rechunk((ROWS, 5)), axis=0)).mean(axis=1)
        r, projection, scales, spectrum = da.compute(r, q.T @ answer, scales, spectrum)
        x, y = client.gather(client.compute([features, answer]))
    solution = np.linalg.solve(r, projection)

    print(f"{COLUMNS} weights found to within {abs(solution - weights).max():.4f}")
    print(f"the first component holds {scales[0] ** 2 / (scales**2).sum():.2%} of the variance")
    print(f"white noise: {spectrum[1:].min() / spectrum[1:].max():.2f} of the strongest frequency in the weakest")

    np.testing.assert_allclose(solution, np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-6)
    np.testing.assert_allclose(scales, np.linalg.svd(x - x.mean(axis=0), compute_uv=False), rtol=1e-6)
    np.testing.assert_allclose(spectrum, abs(np.fft.rfft(x - x.mean(axis=0), axis=0)).mean(axis=1), rtol=1e-6, atol=1e-6)
    print("NumPy says the same.")


if __name__ == "__main__":
    main(*(sys.argv[1:] or [os.environ.get("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:8786")]))
