"""Segment a video from Python and print how much of each frame every mask covers.

python examples/segment_video.py VIDEO WEIGHTS "the dog on the left" ["the ball" ...]
"""

import sys

from glus.predictor import GlusPredictor


def main(video: str, weights: str, expressions: list[str]) -> None:
    """Print a line for each frame and expression, then in how many frames there is a mask."""
    predictor = GlusPredictor.from_pretrained(weights)  # a GPU where there is one, bf16 there
    for frame in predictor.stream(video, expressions):  # one frame at a time: any length
        for text, mask in zip(expressions, frame.masks, strict=True):  # bool [height, width]
            print(f"{frame.name}  {text}: {mask.mean():.1%} of the frame")

    result = predictor.segment(video, expressions)  # all masks: bool [expressions, frames, height, width]
    for text, masks in zip(result.expressions, result.masks, strict=True):
        print(f"{text}: a mask in {masks.any(axis=(1, 2)).sum()} of {len(result.names)} frames")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
