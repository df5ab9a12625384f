import io
import sys
import time
from types import SimpleNamespace

from unnoise.training.callbacks.progress import Progress
from unnoise.training.callbacks.samples import SampleGrid


def test_the_time_left_is_that_of_the_steps_and_of_the_last_drawing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    latest = {"train/loss": 0.5, "train/images_per_second": 10.0}
    progress = Progress("run", SimpleNamespace(latest=latest))
    grid = SampleGrid(sampler=None, final="final", count=6)
    module = SimpleNamespace(model=SimpleNamespace(steps={"final": 500}.get))
    trainer = SimpleNamespace(
        max_steps=100, global_step=20, is_global_zero=True, callbacks=[progress, grid]
    )
    progress.on_train_start(trainer, module)
    trainer.global_step = 60
    progress._bar.update(40)
    progress._bar.start_t = time.time() - 80
    progress.on_train_batch_end(trainer, module)
    # 40 steps in 80 s, so 80 s for the other 40; 6 · 500 evaluations at 30 a second take 100 s
    assert progress._bar.postfix == "<03:00, loss 0.5000, 10 images/s"
    progress.on_train_end(trainer, module)
