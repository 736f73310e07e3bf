"""Sizes and switches of GLUS. The defaults are the released GLUS-7B; everything that follows from others is derived."""

import importlib.util
from dataclasses import dataclass, field
from typing import Literal

from glus.common.errors import ModelError
from glus.common.paths import PathText
from glus.model.bounds import check_bounds
from glus.model.pretraining.stand_in_config import StandInConfig

#: What a model is; each folder that differs by it has one table of it.
Method = Literal["glus", "videolisa", "selector", "pretraining"]
Family = Literal["llama", "phi3", "qwen3"]
#: Parts of a model that torch.compile takes (model/compiling.py).
Compiled = Literal["none", "llama", "segmenter", "all"]
#: Frames that [SEG] prompts in inference: all, or each expression's key frame alone.
PromptedFrames = Literal["all", "first"]
#: (least, most) of each setting: far beyond any released model, near enough that an empty model of it is quickly made.
#: A stranger's config must not ask for more memory or time than any model needs.
_WIDTH, _LAYERS, _SHARE, _POSITIVE = (1, 65_536), (1, 512), (0, 1), (1e-12, 1e12)
_LANGUAGE = {
    **{"hidden_size": _WIDTH, "heads": (1, 1024), "key_value_heads": (1, 1024), "layers": _LAYERS},
    **{"intermediate_size": (1, 2**20), "max_positions": (1, 2**24), "rms_norm_eps": (0, 1), "rope_theta": _POSITIVE},
    **{"sliding_window": (0, 2**24), "head_dim": (0, 1024)},
    **{"initializer_range": (0, 100), "seg_spread": (0, 100)},
}
_VISION = {
    **{"image_size": (1, 2048), "patch_size": (1, 2048), "hidden_size": _WIDTH, "intermediate_size": (1, 2**20)},
    **{"layers": _LAYERS, "heads": (1, 1024), "select_layer": (-512, 512), "pool": (1, 2**20)},
    **{"mean": (-1e6, 1e6), "std": _POSITIVE, "spread": (0, 100)},
}
_SEGMENTER = {
    **{"image_size": (1, 2048), "embed_dim": (1, 2048), "heads": (1, 256), "stages": (1, 256)},
    **{"global_attention_blocks": (0, 1024), "window_pos_embed_size": (1, 256), "window_spec": (1, 256)},
    **{"hidden_dim": (1, 2048), "decoder_feedforward": _WIDTH, "memory_dim": (1, 2048), "memory_layers": (1, 32)},
    **{"memory_feedforward": _WIDTH, "memory_fuser_layers": (1, 64), "memories": (1, 256), "dropout": _SHARE},
    **{"mask_prior": (-100, 100), "mean": (-1e6, 1e6), "std": _POSITIVE},
}
_SAM1 = {
    **{"image_size": (1, 2048), "patch_size": (1, 256), "width": (1, 4096), "depth": (1, 256), "heads": (1, 256)},
    **{"window": (1, 256), "global_attention_blocks": (0, 1024), "hidden_dim": (1, 2048)},
    **{"decoder_feedforward": _WIDTH, "mean": (-1e6, 1e6), "std": _POSITIVE},
}
_LORA = {"rank": (0, 4096), "alpha": (0, 2**20), "dropout": _SHARE}
_LOSS = {
    **dict.fromkeys(("cross_entropy", "mask_bce", "mask_dice", "contrastive", "score"), (0, 1000000.0)),
    **{"bank_size": (1, 2**22), "bank_negatives": (1, 2**22)},
}


@dataclass(frozen=True)
class LanguageConfig:
    """The language model that reads frames and expressions (a causal one of transformers)."""

    family: Family = "llama"
    """Which language model of transformers."""
    hidden_size: int = 4096
    """Width of the states."""
    intermediate_size: int = 11008
    """Width of the MLPs."""
    layers: int = 32
    """Decoder layers."""
    heads: int = 32
    """Heads of queries."""
    key_value_heads: int = 32
    """Heads of keys and values (grouped-query attention where it is smaller than `heads`)."""
    head_dim: int = 0
    """Width of a head (Qwen3 alone); 0: hidden_size / heads."""
    max_positions: int = 2048
    """2048 and 1e-6 are those of LLaMA 1, from which LISA-7B-v1 and GLUS descend (LLaVA-Lightning-7B-v1-1)."""
    rms_norm_eps: float = 1e-6
    """Epsilon of RMSNorm."""
    rope_theta: float = 10000.0
    """Base of the rotary positions."""
    sliding_window: int = 0
    """How far back a token sees: the keys i - W to i, W + 1 of them (transformers 4.40); 0: all."""
    tie_embeddings: bool = False
    """Whether lm_head is the embedding table itself (SmolLM2)."""
    initializer_range: float = 0.02
    """Spread of freshly drawn weights (LlamaConfig's own default); small models want it wider."""
    seg_spread: float = 0.0
    """Deviation over texts at which freshly drawn [SEG] states start (model/language); 0 leaves torch's own draw, as
    the reference does; loaded weights bring their own.
    """
    attention: Literal["sdpa", "flash_attention_2"] = "sdpa"
    """How attention is computed: torch's own, or flash-attn where it is installed (bf16 on CUDA only)."""

    def __post_init__(self) -> None:
        check_bounds("model.language", self, _LANGUAGE)
        if self.hidden_size % self.heads or self.heads % self.key_value_heads:
            raise ModelError(
                f"model.language: hidden_size {self.hidden_size}, heads {self.heads} and key_value_heads "
                f"{self.key_value_heads} do not fit: each must be a multiple of the next"
            )
        if self.sliding_window and self.family != "phi3":
            raise ModelError(
                f"model.language.sliding_window={self.sliding_window}: the family {self.family} has no window here; "
                "set it to 0, or family to phi3"
            )

        if self.head_dim and self.family != "qwen3":
            raise ModelError(
                f"model.language.head_dim={self.head_dim}: heads of {self.family} are hidden_size / heads wide; "
                "set it to 0, or family to qwen3"
            )

    @property
    def head_width(self) -> int:
        """Width of a head, derived where it is not given."""
        return self.head_dim or self.hidden_size // self.heads

    def check_attention(self) -> None:
        """Raises ModelError where flash-attn is set and not installed."""
        if self.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
            raise ModelError(
                "model.language.attention is flash_attention_2, but flash-attn is not installed: "
                "pip install flash-attn --no-build-isolation (it needs CUDA), or set it to sdpa"
            )


@dataclass(frozen=True)
class VisionConfig:
    """The CLIP vision tower that turns a frame into tokens (transformers' CLIPVisionConfig)."""

    image_size: int = 224
    """Side of the picture in pixels."""
    patch_size: int = 14
    """Side of a patch in pixels."""
    hidden_size: int = 1024
    """Width of the tower."""
    intermediate_size: int = 4096
    """Width of its MLPs."""
    layers: int = 24
    """Its layers."""
    heads: int = 16
    """Its attention heads."""
    select_layer: int = -2
    """Which hidden state is taken (LLaVA: the last but one)."""
    pool: int = 4
    """Patches averaged into one token, in runs along a row (the reference's AvgPool1d)."""
    spread: float = 0.0
    """Deviation at which freshly drawn position embeddings start; patches then keep their variance. 0 leaves
    transformers' own draw; loaded weights bring their own.
    """
    projector: Literal["linear", "mlp2x_gelu"] = "linear"
    """What makes tokens of patches: one linear layer, or two with GELU between (LLaVA 1.5)."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    """Mean of the pixels, red, green and blue, 0 to 1."""
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    """Deviation of the pixels."""

    @property
    def tokens_per_frame(self) -> int:
        """Tokens that one frame takes in the language model: 64 for CLIP-L/14 at 224."""
        return (self.image_size // self.patch_size) ** 2 // self.pool

    @property
    def layers_run(self) -> int:
        """Layers up to the hidden state that is taken; those above it would be computed for nothing."""
        return self.layers + 1 + self.select_layer if self.select_layer < 0 else self.select_layer

    def __post_init__(self) -> None:
        check_bounds("model.vision", self, _VISION)
        if not 1 <= self.layers_run <= self.layers:
            raise ModelError(
                f"model.vision.select_layer={self.select_layer}: with {self.layers} layers it must be from 1 to "
                f"{self.layers}, or from -{self.layers} to -1"
            )
        if self.hidden_size % self.heads:
            raise ModelError(f"model.vision: hidden_size {self.hidden_size} must be a multiple of heads {self.heads}")
        if self.image_size % self.patch_size or (self.image_size // self.patch_size) ** 2 % self.pool:
            raise ModelError(
                f"model.vision: image_size {self.image_size}, patch_size {self.patch_size} and pool {self.pool} do not "
                "fit: the patches must tile the image and the pool must divide their number"
            )


@dataclass(frozen=True)
class SegmenterConfig:
    """SAM 2: Hiera image encoder, memory, mask decoder. The defaults are sam2_hiera_large.yaml."""

    kind: Literal["sam2", "sam1"] = "sam2"
    """sam2, or SAM 1 for VideoLISA (its sizes: model.sam1; of this section it reads `train_image_encoder` alone)."""
    image_size: int = 1024
    """Side of the picture in pixels."""
    embed_dim: int = 144
    """Width of Hiera's first stage; each later one doubles it."""
    heads: int = 2
    """Attention heads of Hiera's first stage; each later one doubles them."""
    stages: tuple[int, ...] = (2, 6, 36, 4)
    """Blocks of Hiera's four stages."""
    global_attention_blocks: tuple[int, ...] = (23, 33, 43)
    """Blocks whose attention sees the complete picture."""
    window_pos_embed_size: tuple[int, int] = (7, 7)
    """Size of the position table that windows share."""
    window_spec: tuple[int, ...] = (8, 4, 16, 8)
    """Side of the windows in each stage."""
    hidden_dim: int = 256
    """Width of the decoder and of the [SEG] prompt."""
    decoder_feedforward: int = 2048
    """Hidden width of the MLPs in the mask decoder's transformer (SAM 2 has 2048, whatever its sizes). With Adam a
    width far above `hidden_dim` lets their output run away at learning rates that the rest needs from scratch.
    """
    memory_dim: int = 64
    """Width of a memory's tokens."""
    memory_layers: int = 4
    """Layers of memory attention."""
    memory_feedforward: int = 2048
    """Width of their MLPs."""
    memory_fuser_layers: int = 2
    """Layers that fuse mask and features into a memory."""
    memories: int = 7
    """Memories that one frame attends to at most."""
    dropout: float = 0.1
    """Dropout of memory attention."""
    mask_prior: float = 0.0
    """Logit at which freshly drawn masks start, by the decoder's last biases: objects are rare, so below 0 (as in
    RetinaNet). 0 leaves sam2's own draw; loaded weights bring their own.
    """
    train_image_encoder: bool = False
    """The reference runs the image encoder without gradient; from scratch it must learn."""
    train_memory: bool = False
    """The reference runs memory attention without gradient and detaches memories; from scratch they must learn."""
    multimask_fallback: bool = True
    """In eval mode, let SAM 2 fall back to one of its three other masks where the first is unstable. The reference
    does; a model trained from scratch never trains those.
    """
    use_memory: bool = True
    """False drops the memory (the reference's not_use_mem_bank): every frame is decoded alone."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of the pixels, red, green and blue, 0 to 1."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Deviation of the pixels."""

    def __post_init__(self) -> None:
        check_bounds("model.segmenter", self, _SEGMENTER)
        if len(self.stages) != 4 or len(self.window_spec) != 4:
            raise ModelError(
                f"model.segmenter: stages {list(self.stages)} and window_spec {list(self.window_spec)}: Hiera has 4 "
                "stages, give 4 numbers each"
            )
        # SAM 2's decoder halves the width and splits it over 8 heads; an object's token is cut into memory's width.
        if self.hidden_dim % 16 or self.memory_dim % 2 or self.hidden_dim % self.memory_dim:
            raise ModelError(
                f"model.segmenter: hidden_dim {self.hidden_dim} must be a multiple of 16 and of memory_dim "
                f"{self.memory_dim}, which must be even"
            )


@dataclass(frozen=True)
class Sam1Config:
    """Sizes of SAM 1 (`segmenter.kind: sam1`). The defaults are ViT-H, sam_vit_h_4b8939.pth (build_sam.py of SAM)."""

    image_size: int = 1024
    """Pixels of the longer side; the shorter one is padded to it."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    width: int = 1280
    """Width of the image encoder."""
    depth: int = 32
    """Its blocks."""
    heads: int = 16
    """Its attention heads."""
    window: int = 14
    """Patches on a side of a window of the blocks without global attention."""
    global_attention_blocks: tuple[int, ...] = (7, 15, 23, 31)
    """Blocks whose attention sees the complete picture."""
    hidden_dim: int = 256
    """Width of the decoder and of the [SEG] prompt."""
    decoder_feedforward: int = 2048
    """Hidden width of the MLPs in the mask decoder's transformer."""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Of pixels from 0 to 255."""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Deviation of the pixels, 0 to 255."""

    @property
    def grid(self) -> int:
        """Features on a side of a frame: 64."""
        return self.image_size // self.patch_size

    def __post_init__(self) -> None:
        check_bounds("model.sam1", self, _SAM1)
        if self.image_size % self.patch_size:
            raise ModelError(
                f"model.sam1: image_size {self.image_size} must be a multiple of patch_size {self.patch_size}"
            )
        if self.width % self.heads:
            raise ModelError(f"model.sam1: width {self.width} must be a multiple of heads {self.heads}")
        if self.hidden_dim % 16:
            raise ModelError(f"model.sam1: hidden_dim {self.hidden_dim} must be a multiple of 16")
        beyond = [block for block in self.global_attention_blocks if block >= self.depth]
        if beyond:
            raise ModelError(f"model.sam1.global_attention_blocks: {beyond[0]} is none of the {self.depth} blocks")


@dataclass(frozen=True)
class LoraConfig:
    """LoRA on the language model (peft)."""

    rank: int = 8
    """Rank of the two matrices; 0 adds no LoRA."""
    alpha: int = 16
    """Their product counts alpha / rank times."""
    dropout: float = 0.05
    """Dropout before the first matrix."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Linear layers of the language model whose name contains one of these."""

    def __post_init__(self) -> None:
        check_bounds("model.lora", self, _LORA)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses (the reference's train_ds.py)."""

    cross_entropy: float = 1.0
    """Weight of the cross-entropy on the answer."""
    mask_bce: float = 2.0
    """Weight of the binary cross-entropy of the masks."""
    mask_dice: float = 0.5
    """Weight of their dice loss."""
    score: float = 1.0
    """The selector: weight of the L1 loss of a frame's score."""
    contrastive: float = 0.1
    """0 trains without the contrastive loss (GLUS-A); the reference's GLUS-S has 0.1."""
    contrastive_temperature: float = 0.07
    """What similarities are divided by."""
    contrastive_pool: Literal["batch", "bank"] = "batch"
    """What [SEG] states are compared with: those that all ranks read together ("batch"), or, as in the reference, each
    rank's bank of past states ("bank": one positive, `bank_negatives` negatives of the last `bank_size` states).
    """
    contrastive_frames: Literal["same", "all"] = "same"
    """With "batch": an object's other expressions are positives in the same frame, or in all frames."""
    contrastive_datasets: tuple[str, ...] = ()
    """Datasets whose states take part; empty takes all. The reference's bank knows MeViS alone."""
    bank_size: int = 512
    """States that a bank keeps."""
    bank_negatives: int = 128
    """Negatives drawn from it for each state."""

    def __post_init__(self) -> None:
        check_bounds("model.loss", self, _LOSS)
        if not 0 < self.bank_negatives < self.bank_size:
            raise ModelError(
                f"model.loss: bank_negatives={self.bank_negatives} of a bank of {self.bank_size}: it must be from 1 "
                "to less than bank_size"
            )
        if not self.contrastive_temperature > 0:
            raise ModelError(f"model.loss.contrastive_temperature={self.contrastive_temperature}: it must be above 0")


@dataclass(frozen=True)
class ModelConfig:
    """All sizes and switches of GLUS, VideoLISA and the key frame selector."""

    method: Method = "glus"
    """Which system: GLUS, VideoLISA, or GLUS's key frame selector, which has no segmenter (of `segmenter`, it takes
    the width of [SEG] prompts alone)."""
    language: LanguageConfig = field(default_factory=LanguageConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    sam1: Sam1Config = field(default_factory=Sam1Config)
    lora: LoraConfig = field(default_factory=LoraConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    stand_ins: StandInConfig = field(default_factory=StandInConfig)
    share_video_tokens: bool = True
    """In training, the language model reads what the prompts of a video begin with once for all its expressions: system
    text and frames. False reads it again for each, as the references do: the same losses, more FLOP.
    """
    tokenizer: PathText = ""
    """Folder or file of the SentencePiece tokenizer."""

    def __post_init__(self) -> None:
        if self.method in ("glus", "pretraining") and self.segmenter.kind != "sam2":
            raise ModelError(
                f"model.segmenter.kind is {self.segmenter.kind}, but model.method is {self.method}, which needs the "
                "memory of SAM 2: set kind to sam2, or method to videolisa"
            )

    @property
    def shares_beginnings(self) -> bool:
        """Whether training reads what the prompts of a video begin with once; flash-attn takes no mask for it."""
        return self.share_video_tokens and self.language.attention == "sdpa"

    @property
    def prompt_width(self) -> int:
        """Width of a [SEG] prompt: that of the segmenter's decoder."""
        return self.decoder.hidden_dim

    @property
    def decoder(self) -> "SegmenterConfig | Sam1Config":
        """The sizes of the segmenter that is used."""
        return self.sam1 if self.segmenter.kind == "sam1" else self.segmenter
