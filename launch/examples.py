"""Examples at the end of each command's help; tests parse every one of them."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo-data": ("glus demo-data configs/demo_data.yaml root=build/raw",),
    "prepare": (
        "glus prepare datasets=[mevis,revos] root=/data/raw out=/data/shards",
        "glus prepare datasets=[refcoco] root=/data/raw out=s3://bucket/shards",
    ),
    "data": (
        "glus data stats shards=/data/shards",
        "glus data show shards=/data/shards out=build/samples.png",
    ),
    "pretrain-encoder": ("glus pretrain-encoder configs/demo_encoder.yaml run=configs/demo.yaml out=build/sam2.pt",),
    "train": (
        "glus train configs/glus_a.yaml shards=/data/shards out=build/glus_a",
        "glus train configs/glus_a.yaml optimizer.learning_rate=1e-4 --engine.micro-batch-size 2",
        "glus train configs/glus_a.yaml --print-config",
    ),
    "evaluate": (
        "glus evaluate checkpoint=build/glus_a shards=/data/shards out=build/glus_a/eval",
        "glus evaluate checkpoint=build/glus_a shards=/data/shards out=build/eval splits=[mevis/valid_u]",
    ),
    "select-frames": ("glus select-frames checkpoint=build/selector shards=/data/shards out=build/key_frames.json",),
    "export": ("glus export build/glus_a out=build/release",),
    "download": (
        "glus download configs/glus_a.yaml",
        "glus download datasets=[mevis] root=/data/raw",
    ),
    "segment": (
        'glus segment clip.mp4 "the dog on the left" "the ball" --weights build/glus_a --out build/masks',
        'glus segment frames/ "the dog" --weights build/glus_a --out build/masks --key-frame 12',
    ),
    "score": ("glus score predictions=build/eval shards=/data/shards out=build/scores",),
    "package": ("glus package predictions=build/eval shards=/data/shards split=mevis/valid out=mevis_valid.zip",),
    "report": ("glus report build/glus_a/eval build/glus_s/eval out=build/report",),
    "compare": (
        "glus compare glus_a glus_s --published",
        "glus compare build/glus_a/eval build/glus_s/eval out=build/compare",
    ),
    "completion": (
        "glus completion bash >~/.local/share/bash-completion/completions/glus",
        "glus completion zsh >~/.zfunc/_glus",
    ),
    "plan": ("glus plan configs/glus_a.yaml --nodes 1 --gpus-per-node 8",),
    "doctor": ("glus doctor configs/glus_a.yaml",),
    "submit": (
        "glus submit train configs/glus_a.yaml nodes=2",
        "glus submit reproduce configs/glus_a.yaml nodes=2 --dry-run",
    ),
    "jobs": ("glus jobs build",),
    "demo": ("glus demo", "glus demo out=build/other_demo"),
    "demo-motion": ("glus demo-motion",),
    "demo-davis": ("glus demo-davis data=/data/raw start=build/demo/run",),
    "demo-videolisa": ("glus demo-videolisa",),
}
