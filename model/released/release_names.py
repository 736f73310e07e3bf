"""Names of parameters in the released weights and in our model, both ways. A name that no line covers is an error.

Sources: GLUSForCausalLM (the reference's model/GLUS.py), VideoLISAForCausalLM (VideoLISA's model/VideoLISA.py),
LISAForCausalLM (LISA's model/LISA.py), LlavaPhiForCausalLM (LLaVA++), CLIPModel and
LlamaForCausalLM (transformers), SAM2Base (sam2), Sam (segment_anything; transformers names its parts otherwise).
"""

import dataclasses
from dataclasses import dataclass
from fnmatch import fnmatchcase

from glus.model.model_config import ModelConfig, Sam1Config, VisionConfig


@dataclass(frozen=True)
class Ignored:
    """Released names that our model has no use for, as a pattern (fnmatch), and why."""

    pattern: str
    why: str


@dataclass(frozen=True)
class NameMap:
    """The names of one release. `renames`: beginning of a released name -> beginning of ours; the first that fits."""

    release: str
    renames: tuple[tuple[str, str], ...]
    ignored: tuple[Ignored, ...] = ()

    def ignoring(self, released: str) -> Ignored | None:
        """The line that says why a released name is not wanted; None where it is."""
        return next((each for each in self.ignored if fnmatchcase(released, each.pattern)), None)

    def ours(self, released: str) -> str | None:
        """Our name of a released one; None where it is unknown."""
        return next(
            (ours + released[len(theirs) :] for theirs, ours in self.renames if released.startswith(theirs)), None
        )

    def released(self, ours: str) -> str | None:
        """The released name of one of ours; None where the release does not hold it."""
        return next((theirs + ours[len(begin) :] for theirs, begin in self.renames if ours.startswith(begin)), None)


_LLAMA = (
    ("model.embed_tokens.", "language.llama.model.embed_tokens."),
    ("model.layers.", "language.llama.model.layers."),
    ("model.norm.", "language.llama.model.norm."),
    ("lm_head.", "language.llama.lm_head."),
)
_PROJECTOR = (("model.mm_projector.", "language.mm_projector."),)
_ROTARY = Ignored("model.layers.*.self_attn.rotary_emb.inv_freq", "a table that follows from the sizes")
_TOWER = Ignored("model.vision_tower.*", "the vision tower comes from a release of its own (weights.vision)")

LLAMA = NameMap("a Llama of transformers", _LLAMA, (_ROTARY,))

#: LLaVA 1.5 and what is built like it (LLaVA-Phi-3-mini of LLaVA++); a LISA that VideoLISA begins with too.
LLAVA = NameMap(
    "LLaVA",
    _LLAMA + _PROJECTOR,
    (
        _ROTARY,
        _TOWER,
        Ignored("model.visual_model.*", "the segmenter comes from a release of its own (weights.segmenter)"),
        Ignored("model.text_hidden_fcs.*", "starts freshly drawn, as in the reference"),
    ),
)

#: The same in transformers' own layout (LlavaForConditionalGeneration, such as xtuner/llava-phi-3-mini-hf).
LLAVA_OF_TRANSFORMERS = NameMap(
    "a LLaVA of transformers",
    (
        *((f"language_model.{theirs}", ours) for theirs, ours in _LLAMA),
        ("multi_modal_projector.linear_1.", "language.mm_projector.0."),
        ("multi_modal_projector.linear_2.", "language.mm_projector.2."),
    ),
    (
        Ignored("language_model.model.layers.*.self_attn.rotary_emb.inv_freq", _ROTARY.why),
        Ignored("vision_tower.*", _TOWER.why),
    ),
)

LISA = NameMap(
    "LISA",
    _LLAMA + _PROJECTOR,
    (
        _ROTARY,
        _TOWER,
        Ignored("model.visual_model.image_encoder.*", "SAM 1, which GLUS replaces by SAM 2"),
        Ignored("model.visual_model.prompt_encoder.*", "SAM 1, which GLUS replaces by SAM 2"),
        Ignored("model.visual_model.mask_decoder.*", "SAM 1, which GLUS replaces by SAM 2"),
        Ignored("model.visual_model.pixel_mean", "SAM 1, which GLUS replaces by SAM 2"),
        Ignored("model.visual_model.pixel_std", "SAM 1, which GLUS replaces by SAM 2"),
        # The reference's train_ds.py calls initialize_glus_modules after from_pretrained, which draws them again.
        Ignored("model.text_hidden_fcs.*", "made for SAM 1's decoder; GLUS starts it freshly drawn"),
    ),
)

#: Where SAM 2 lies in a GLUS checkpoint.
SEGMENTER = "model.visual_model."
#: What `glus export` writes next to the parameters: the mean and deviation of SAM 2's pixels, which the reference's
#: `transform` holds. In our model they are settings.
PIXEL_MEAN, PIXEL_DEVIATION = "transform.transforms.1.m", "transform.transforms.1.d"

GLUS = NameMap(
    "GLUS",
    _LLAMA + _PROJECTOR + (("model.text_hidden_fcs.", "language.text_hidden_fcs."), (SEGMENTER, "segmenter.sam2.")),
    (
        _ROTARY,
        _TOWER,
        Ignored(PIXEL_MEAN, "a setting (model.segmenter.mean)"),
        Ignored(PIXEL_DEVIATION, "a setting (model.segmenter.std)"),
    ),
)

#: What the key frame selector takes of a GLUS checkpoint. Its score head is in no release.
LANGUAGE_OF_GLUS = NameMap(
    "GLUS's language half",
    tuple(rename for rename in GLUS.renames if rename[0] != SEGMENTER),
    (*GLUS.ignored, Ignored(f"{SEGMENTER}*", "the key frame selector has no segmenter")),
)

CLIP = NameMap(
    "CLIP",
    (("vision_model.", "language.vision_tower."),),
    (
        Ignored("text_model.*", "CLIP's text half"),
        Ignored("text_projection.*", "CLIP's text half"),
        Ignored("visual_projection.*", "CLIP's head for comparing images with texts"),
        Ignored("logit_scale", "CLIP's head for comparing images with texts"),
        Ignored("vision_model.embeddings.position_ids", "a table that follows from the sizes"),
    ),
)

SAM2 = NameMap(
    "SAM 2",
    (("", "segmenter.sam2."),),
    (
        # Of sam2.1_hiera_*.pt: both act on object scores and object pointers alone, which GLUS does not use.
        Ignored("no_obj_embed_spatial", "SAM 2.1 marks memories without an object by it; GLUS keeps no object scores"),
        Ignored("obj_ptr_tpos_proj.*", "SAM 2.1 dates object pointers by it; GLUS has none"),
    ),
)


def clip_names(vision: VisionConfig) -> NameMap:
    """CLIP's names for a tower that ends at `vision.select_layer`."""
    above = tuple(
        Ignored(f"vision_model.encoder.layers.{layer}.*", "above the hidden state that is read (select_layer)")
        for layer in range(vision.layers_run, vision.layers)
    )
    return dataclasses.replace(CLIP, ignored=CLIP.ignored + above)


#: SAM 1's names -> ours, which are transformers'.
_SAM1_ENCODER = (
    ("patch_embed.proj.", "patch_embed.projection."),
    ("pos_embed", "pos_embed"),
    ("neck.0.", "neck.conv1."),
    ("neck.1.", "neck.layer_norm1."),
    ("neck.2.", "neck.conv2."),
    ("neck.3.", "neck.layer_norm2."),
)
_SAM1_PROMPTS = (
    ("pe_layer.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    ("point_embeddings.", "point_embed."),
    ("not_a_point_embed.", "not_a_point_embed."),
    ("no_mask_embed.", "no_mask_embed."),
    ("mask_downscaling.0.", "mask_embed.conv1."),
    ("mask_downscaling.1.", "mask_embed.layer_norm1."),
    ("mask_downscaling.3.", "mask_embed.conv2."),
    ("mask_downscaling.4.", "mask_embed.layer_norm2."),
    ("mask_downscaling.6.", "mask_embed.conv3."),
)
_SAM1_DECODER = (
    *(
        (f"transformer.layers.{i}.norm{n}.", f"transformer.layers.{i}.layer_norm{n}.")
        for i in (0, 1)
        for n in range(1, 5)
    ),
    ("transformer.norm_final_attn.", "transformer.layer_norm_final_attn."),
    ("transformer.", "transformer."),
    ("iou_token.", "iou_token."),
    ("mask_tokens.", "mask_tokens."),
    ("output_upscaling.0.", "upscale_conv1."),
    ("output_upscaling.1.", "upscale_layer_norm."),
    ("output_upscaling.3.", "upscale_conv2."),
    *(
        (f"{mlp}.layers.{layer}.", f"{mlp}.{ours}.")
        for mlp in (*(f"output_hypernetworks_mlps.{mask}" for mask in range(4)), "iou_prediction_head")
        for layer, ours in enumerate(("proj_in", "layers.0", "proj_out"))
    ),
)
_PIXELS = "a setting (model.sam1.mean, model.sam1.std)"


def sam1_names(sizes: Sam1Config, where: str = "") -> NameMap:
    """SAM 1's names (sam_vit_h_4b8939.pth); `where`: their beginning in a checkpoint that holds more."""
    blocks = (
        (f"blocks.{block}.{theirs}", f"layers.{block}.{ours}")
        for block in range(sizes.depth)
        for theirs, ours in (
            ("norm1.", "layer_norm1."),
            ("norm2.", "layer_norm2."),
            ("attn.", "attn."),
            ("mlp.", "mlp."),
        )
    )
    parts = (
        ("image_encoder.", "vision_encoder.", (*_SAM1_ENCODER, *blocks)),
        ("prompt_encoder.", "prompt_encoder.", _SAM1_PROMPTS),
        ("mask_decoder.", "mask_decoder.", _SAM1_DECODER),
    )
    renames = tuple(
        (where + theirs_part + theirs, "segmenter.sam1." + our_part + ours)
        for theirs_part, our_part, lines in parts
        for theirs, ours in lines
    )
    ignored = tuple(Ignored(where + name, _PIXELS) for name in ("pixel_mean", "pixel_std"))
    return NameMap("SAM 1", renames, ignored)


def videolisa_names(config: ModelConfig) -> NameMap:
    """The names of a VideoLISA checkpoint (VideoLISAForCausalLM), less the vision tower, which it is released without.

    Its segmenter is SAM 1, or in a checkpoint of ours SAM 2.
    """
    if config.segmenter.kind == "sam1":
        segmenter = sam1_names(config.sam1, SEGMENTER)
    else:
        segmenter = NameMap("SAM 2", ((SEGMENTER, "segmenter.sam2."),))
    head = (("model.text_hidden_fcs.", "language.text_hidden_fcs."),)
    return NameMap("VideoLISA", _LLAMA + _PROJECTOR + head + segmenter.renames, (_ROTARY, _TOWER, *segmenter.ignored))
