"""Turn a training's checkpoint into a file to ship: python -m scripts.release_weights CHECKPOINT.

The file holds int8 weights with one scale per output channel, the configuration, the body's
identity and facts of the training. `demo.py`, `hubconf.py` and `main.py --load_checkpoint` read it.
"""

import sys
from pathlib import Path

from smpler.models.smpler import PRESETS, SMPLerConfig
from smpler.models.weights.checkpoint import RELEASED_FILES, read_checkpoint
from smpler.models.weights.files import read_tensors
from smpler.models.weights.quantized import read_quantized, write_quantized
from smpler.utils.flags import Parser, input_file, output_file, program
from smpler.utils.paths import display

KEPT = ("body", "protocol", "metric", "global_iter", "batch_size", "arguments")
"""Facts of the training, as the trainer wrote them; `metric` is the evaluation's MPJPE."""


@program
def main(argv: list[str] | None = None) -> int:
    """Write the file; return 0, or 2 with one sentence when that is impossible."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=input_file, help="such as logs/NAME/checkpoints/best.pt")
    parser.add_argument("--out", type=output_file, help="default: its place in pretrained/")
    arguments = parser.parse_args(argv)
    out = release(arguments.checkpoint, arguments.out)
    print(f"{display(out)}: {out.stat().st_size / 1e6:.2f} MB")
    return 0


def release(path: Path, out: Path | None = None) -> Path:
    """Write the int8 file of a checkpoint and return its place.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: our trainer did not write it, or its model has no place in pretrained/.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.body_sha256 is None:
        raise ValueError(
            f"{checkpoint.source} does not say on which body it was trained; only checkpoints that "
            "main.py wrote can be released."
        )
    content = read_tensors(path)
    facts = {key: content[key] for key in KEPT if key in content}
    out = out or place_of(checkpoint.config, checkpoint.source)
    write_quantized(out, checkpoint.state, {"config": checkpoint.config.to_dict(), **facts})
    read_quantized(out)  # raises if the file cannot be read back
    return out


def place_of(config: SMPLerConfig, source: str) -> Path:
    """Return where the demo looks for weights of this configuration."""
    for preset, path in RELEASED_FILES.items():
        if PRESETS[preset] == config:
            return path
    raise ValueError(f"{source} is none of {', '.join(RELEASED_FILES)}; say --out FILE.")


if __name__ == "__main__":
    sys.exit(main())
