"""Overrides that make the run of tests/tiny_run.yaml one of a small VideoLISA, on videos alone or with images."""

#: The tiny run's model as a VideoLISA: Phi-3 with a window that is shorter than a prompt, SAM 1, a frozen projector.
VIDEOLISA = (
    "model.method=videolisa",
    "model.language.family=phi3",
    "model.language.sliding_window=30",
    "model.vision.projector=mlp2x_gelu",
    "model.vision.pool=1",
    "model.segmenter={kind: sam1}",
    "model.sam1={image_size: 64, width: 16, depth: 2, heads: 2, window: 3, global_attention_blocks: [1], "
    "hidden_dim: 32, decoder_feedforward: 64}",
    "model.loss.contrastive=0",
    "sampling.frame_choice=sparse_dense",
    "sampling.context_frames=8",
    "sampling.query_frames=2",
    "sampling.prompts=videolisa_short",
    'trainable=["*lora_*", "language.llama.model.embed_tokens.*", "language.llama.lm_head.*", '
    '"language.text_hidden_fcs.*", "segmenter.sam1.mask_decoder.*"]',
)
IMAGES = ("sampling.mixture={mevis/train: 2, refcoco/train: 1, reason_seg/train: 1}", "sampling.expressions=2")
