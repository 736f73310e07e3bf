"""How the demo world is painted, against its formula in NumPy."""

import cv2
import numpy as np

from glus.common.seeds import numpy_generator
from glus.demo.synthetic.objects import DemoWorldConfig, sample_objects
from glus.demo.synthetic.world import NOISE, _paint, _patches


def test_frames_are_the_formula_in_float32_rounded_to_even_and_clipped():
    config = DemoWorldConfig(frames=6, width=80, height=64, min_objects=3)
    objects = sample_objects(numpy_generator(3), config)
    patches = _patches(objects, config)
    assert sum(map(len, patches)) >= 12
    painted = _paint(numpy_generator(4), objects, patches, config)

    rng = numpy_generator(4)
    texture = cv2.resize(rng.standard_normal((7, 9), dtype=np.float32), (80, 64), interpolation=cv2.INTER_CUBIC)
    tint = rng.uniform(-4, 4, 3).astype(np.float32)
    ground = np.float32(rng.uniform(95, 150)) + 7 * texture[..., None] + tint
    frames = np.repeat(ground[None], config.frames, axis=0)
    for frame, of_frame in zip(frames, patches, strict=True):
        for patch in of_frame:
            opacity = patch.coverage[..., None].astype(np.float32) / 255
            colour = np.array(objects[patch.index].rgb, dtype=np.float32)
            frame[patch.rows, patch.columns] += opacity * (colour - frame[patch.rows, patch.columns])
    frames += NOISE * rng.standard_normal((*frames.shape[:3], 1), dtype=np.float32)
    assert np.array_equal(painted, np.clip(np.rint(frames), 0, 255))
