"""The recipe of `glus demo`: a small GLUS from scratch, in stages after which it sees motion (docs/study.md)."""

from glus.demo.demo_stages import CONFIGS
from glus.demo.recipe import DemoTraining, Recipe
from glus.demo.synthetic.demo_datasets import TWINS

TWIN_SPLIT = "demo_twins/valid"
_MASKS = ("model.loss.mask_bce=2", "model.loss.mask_dice=2", "model.loss.cross_entropy=0.05")
_DECODER = (
    '"segmenter.sam2.sam_mask_decoder.*"',
    "segmenter.sam2.no_mem_embed",
    '"segmenter.sam2.sam_prompt_encoder.no_mask_embed.*"',
)
_MEMORY = ('"segmenter.sam2.memory_attention.*"', '"segmenter.sam2.memory_encoder.*"')
_HEADS = ('"stand_ins.place.*"', '"stand_ins.language.*"')
#: What one frame shows.
_SINGLE = (
    *("sampling.single_frame=true", "sampling.context_frames=0", "sampling.expressions=3"),
    *("sampling.kinds=[look, relation]", "model.segmenter.use_memory=false"),
    # Of sampling.attributes in configs/demo.yaml: shape and colour.
    "model.stand_ins.language_groups=[1, 2]",
)
_CLIPS = "sampling.kinds=[look, motion, relation]"


def _videos(count: int, ranks: int = 1) -> tuple[str, ...]:
    """So many videos a step. One process is the fastest for most of so small a model; the last stage is ZeRO-3."""
    stage = "plain" if ranks == 1 else 3
    of_batch = (f"global_batch_size={count}", f"engine.micro_batch_size={count // ranks}")
    return (*of_batch, f"ranks={ranks}", f"engine.stage={stage}")


#: In order. What each stands in for: docs/study.md.
TRAININGS = (
    DemoTraining(
        "words_of_tower",
        steps=300,
        decay=270,
        changes=(*_videos(32), "model.stand_ins.tower=1", "sampling.context_frames=0", "sampling.expressions=1"),
        trains=('"language.vision_tower.*"', '"stand_ins.tower.*"'),
    ),
    DemoTraining(
        "words_of_language",
        steps=1200,
        start="words_of_tower",
        decay=400,
        changes=(*_videos(32), "model.stand_ins.language=1", "sampling.expressions=1"),
        trains=(
            *('"language.vision_tower.*"', '"language.mm_projector.*"', '"language.llama.model.layers.[01].*"'),
            *('"language.llama.model.embed_tokens.*"', '"stand_ins.language.*"'),
        ),
    ),
    DemoTraining(
        "masks_in_frames",
        steps=900,
        start="words_of_language",
        decay=300,
        changes=(*_videos(24), *_SINGLE, *_MASKS, "model.stand_ins.place=0.5", "model.stand_ins.language=0.5"),
        trains=('"language.*"', *_HEADS, *_DECODER),
        evaluated=True,
    ),
    DemoTraining(
        "memory",
        steps=260,
        start="masks_in_frames",
        decay=100,
        changes=(
            *(*_videos(8), *_MASKS[:2], "model.stand_ins.unprompted=1", "sampling.query_frames=4"),
            *("sampling.expressions=2", "sampling.kinds=[look, relation]"),
        ),
        trains=(*_DECODER, *_MEMORY),
    ),
    DemoTraining(
        "places_in_clips",
        steps=1800,
        start="memory",
        decay=500,
        changes=(*_videos(16), _CLIPS, "model.stand_ins.place=1", "model.stand_ins.language=0.5"),
        trains=('"language.*"', *_HEADS),
    ),
    DemoTraining(
        "clips",
        steps=500,
        start="places_in_clips",
        decay=200,
        changes=(
            *(*_videos(8, ranks=2), _CLIPS, *_MASKS, "model.stand_ins.language=0.3"),
            "sampling.query_frames=1",
        ),
        trains=('"language.*"', _HEADS[1], *_DECODER),
        evaluated=True,
    ),
)

MOTION = Recipe(
    data=CONFIGS / "demo_data.yaml",
    # Those whose training videos the stages read.
    datasets=("mevis", "refer_youtube_vos", "ref_davis17", "revos"),
    further=TWINS,
    train=CONFIGS / "demo.yaml",
    trainings=TRAININGS,
    final="clips",
    single_frames="masks_in_frames",
    splits=(TWIN_SPLIT, "mevis/valid_u", "ref_davis17/valid", "revos/valid"),
)
