"""The recipe `looks`: a smaller GLUS on all six datasets, in ten minutes: looks, no motion (docs/demo.md)."""

from glus.demo.demo_stages import CONFIGS
from glus.demo.recipe import DemoTraining, Recipe
from glus.demo.synthetic.demo_datasets import VIDEO_DATASETS

SPLITS = ("mevis/valid_u", "ref_davis17/valid", "revos/valid", "reason_vos/valid")
_CLIP_STEPS = 60

LOOKS = Recipe(
    data=CONFIGS / "looks_data.yaml",
    datasets=VIDEO_DATASETS,
    train=CONFIGS / "looks.yaml",
    trainings=(
        DemoTraining("untrained", steps=0, changes=("ranks=1",), evaluated=True),
        # As LISA before GLUS: without memory.
        DemoTraining(
            "single_frames",
            steps=900,
            changes=(
                *("global_batch_size=24", "engine.micro_batch_size=12", "optimizer.learning_rate=1.2e-3"),
                *("sampling.single_frame=true", "sampling.context_frames=1", "sampling.query_frames=1"),
                *("model.segmenter.use_memory=false", "model.loss.contrastive=0"),
            ),
            trains=(
                *('"*lora_*"', "language.llama.model.embed_tokens.*", "language.llama.lm_head.*"),
                *("segmenter.sam2.sam_mask_decoder.*", "segmenter.sam2.no_mem_embed"),
                "segmenter.sam2.sam_prompt_encoder.no_mask_embed.*",
            ),
            evaluated=True,
        ),
        DemoTraining("clips", steps=_CLIP_STEPS, start="single_frames", evaluated=True),
        DemoTraining(
            "without_contrastive",
            steps=_CLIP_STEPS,
            start="single_frames",
            changes=("model.loss.contrastive=0",),
            evaluated=True,
        ),
    ),
    final="clips",
    single_frames="single_frames",
    splits=SPLITS,
)
