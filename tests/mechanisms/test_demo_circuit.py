"""The planted cue of the demo world: heads found on some scenes carry it in others, as a trace foretells."""

import numpy as np
import torch

import caap_lab as cl
from caap_lab.data.scenes import CUE_CLASS


def test_the_head_that_a_trace_finds_carries_the_cue_in_new_scenes() -> None:
    model = cl.load_model("demo-spurious")
    assert isinstance(model, cl.HookedViT)
    scenes = [scene for scene in cl.demo_images("spurious", 12, seed=0) if scene.label != CUE_CLASS]
    clean = model.preprocess([scene.image for scene in scenes])
    blanked = cl.corrupt(model, clean, "blank", masks=[scene.cue for scene in scenes])
    with torch.no_grad():
        answers, without = (model(batch).argmax(1).tolist() for batch in (clean, blanked))
    led = [n for n, s in enumerate(scenes) if answers[n] == CUE_CLASS and without[n] == s.label]
    targets = [cl.contrast(CUE_CLASS, scene.label) for scene in scenes]
    search, test = led[:4], led[4:8]
    assert len(test) == 4

    found = cl.trace(
        model, clean[search], blanked[search], [targets[n] for n in search], points="z", by="head", progress=False
    )
    top = np.unravel_index(found.mean.argmax(), found.mean.shape)
    assert found.mean[top] > 2 * np.delete(found.mean.ravel(), found.mean.argmax()).max()

    asked = [targets[n] for n in test]
    lost = cl.ablate_heads(model, clean[test], asked, reference=blanked[test], progress=False)
    others = np.delete(lost.effect.reshape(len(test), -1), found.mean.argmax(), axis=1)
    here = lost.effect[:, top[0], top[1]]
    assert (here < others.min(axis=1)).all()  # in every scene it costs the cue more than any other head
    assert (lost.mean[top] < lost.data["baseline"].mean() * -0.3) and np.abs(others.mean(axis=0)).max() < 2
