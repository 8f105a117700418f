"""Draws the pictures of one page anew: python docs/conversation_pictures.py"""

from pathlib import Path

from mlxray import InterpretableModel

IMAGES = Path(__file__).resolve().parent / "images"
CHAT = [
    {"role": "user", "content": "My name is Alice."},
    {"role": "assistant", "content": "Nice to meet you!"},
    {"role": "user", "content": "How are you?"},
    {"role": "assistant", "content": "I am fine, thank you."},
    {"role": "user", "content": "What's my name?"},
]
ANSWER = {"role": "assistant", "content": "Your name is Alice."}


def main() -> None:
    """Write all of them."""
    model = InterpretableModel("pocket")
    results = {
        "conversation-attention": model.conversation_attention([*CHAT, ANSWER], layers=[4]),
        "conversation-ablation": model.turn_ablation(CHAT),
        "conversation-layers": model.turn_ablation(CHAT, by="layer", turns=[0, 1, 2, 3]),
    }
    IMAGES.mkdir(exist_ok=True)
    for name, result in results.items():
        path = IMAGES / f"{name}.png"
        figure = result.plot(backend="matplotlib")
        # Without the version of the library, the same picture is the same file.
        figure.savefig(path, dpi=80, bbox_inches="tight", metadata={"Software": None})
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
