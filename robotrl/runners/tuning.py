"""Hyper-parameter search with Optuna: what is searched, and one trial after the other, resumable.

The study is a SQLite file, each trial a run directory beside it. A trial that a kill left unfinished continues from its
checkpoint. Its value is the mean return of its last evaluation, averaged over training seeds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robotrl.configs.compose import compose, named_classes
from robotrl.functional.statistics import bootstrap_interval, mean
from robotrl.runners.finish import STOPPED, finish
from robotrl.runners.loop import train
from robotrl.runners.outcome import exists, finished_env_steps, last_evaluation
from robotrl.runners.run import Run
from robotrl.types import Metrics, RobotRLError

_CALL = re.compile(r"^(loguniform|uniform|int|logint|choice)\((.*)\)$")


@dataclass(frozen=True, slots=True)
class Range:
    """The values one key may take: `loguniform(1e-5,1e-2)`, `uniform(0.9,1)`, `int(4,16)`, `choice(a,b)`, ..."""

    kind: str
    values: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> Range | None:
        """The range that `text` writes; None where it is an ordinary value.

        Raises:
            RobotRLError: bounds that are missing, no numbers, or the wrong way round.
        """
        call = _CALL.match(str(text).strip())
        if call is None:
            return None
        values = tuple(part.strip() for part in call[2].split(",") if part.strip())
        result = Range(call[1], values)
        if result.kind == "choice" and values:
            return result
        try:
            low, high = (float(v) for v in values)
        except ValueError:
            low, high = 1.0, 0.0
        if not low < high or (result.kind.startswith("log") and low <= 0):
            example = {"choice": "choice(64,128)", "loguniform": "loguniform(1e-5,1e-2)"}.get(result.kind, "int(4,16)")
            raise RobotRLError(f"Cannot search in '{text}': write it like {example}, with low < high, logs above 0.")
        return result

    def __str__(self) -> str:
        return f"{self.kind}({','.join(self.values)})"

    def suggest(self, trial: Any, key: str) -> str:
        """Ask Optuna for a value, as it would be written on the command line."""
        if self.kind == "choice":
            return str(trial.suggest_categorical(key, list(self.values)))
        low, high = (float(v) for v in self.values)
        if self.kind.endswith("int"):
            return str(trial.suggest_int(key, int(low), int(high), log=self.kind == "logint"))
        return repr(trial.suggest_float(key, low, high, log=self.kind == "loguniform"))


def split_words(words: Sequence[str]) -> tuple[list[str], dict[str, Range]]:
    """The ordinary words of a command line, and the ranges in it by key."""
    fixed, space = [], {}
    for word in words:
        key, _, value = word.partition("=")
        searched = Range.parse(value)
        if searched is None:
            fixed.append(word)
        else:
            space[key] = searched
    return fixed, space


def read_space(path: str | Path) -> dict[str, Range]:
    """A search space from YAML: dotted keys to ranges as text, or to a list of choices.

    Raises:
        RobotRLError: the file cannot be read, or holds something else.
    """
    from omegaconf import OmegaConf

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:
        raise RobotRLError(f"Cannot read the search space {path}: {error}") from error
    space = {}
    for key, value in ((str(k), v) for k, v in content.items()) if isinstance(content, dict) else ():
        text = f"choice({','.join(map(str, value))})" if isinstance(value, list) else str(value)
        searched = Range.parse(text)
        if searched is None:
            raise RobotRLError(f"{path}: {key} is {value!r}; write a list of choices or a range, as in uniform(0.9,1).")
        space[key] = searched
    if not space:
        raise RobotRLError(f"{path} holds no keys. Write them as in: learner.learning_rate: loguniform(1e-5,1e-2)")
    return space


class Search:
    """One study. `run` does the trials that are missing."""

    def __init__(
        self,
        root: Path,
        words: Sequence[str],
        space: Mapping[str, Range],
        *,
        seeds: int,
        prune: bool,
        say: Callable[[str], None],
    ) -> None:
        """Open or begin the study in `root`.

        Args:
            root: directory of the study.
            words: settings common to all trials.
            space: what is searched.
            seeds: training seeds a trial is averaged over.
            prune: end a trial early whose evaluations lag behind the median of the others.
            say: takes one line for the user.

        Raises:
            RobotRLError: Optuna is not installed, or the study in `root` searches something else.
        """
        try:
            import optuna
        except ImportError as error:
            raise RobotRLError('robotrl tune needs Optuna. Install it with: pip install "robotrl[tune]"') from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna, self.root, self.words, self.space = optuna, root, list(words), dict(space)
        self.seeds, self._say = seeds, say
        root.mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{(root / 'study.db').absolute()}"
        pruner = optuna.pruners.MedianPruner(n_startup_trials=4) if prune else optuna.pruners.NopPruner()
        self.study = optuna.create_study(
            storage=storage, study_name="robotrl", direction="maximize", load_if_exists=True, pruner=pruner
        )
        # TPE seeded by how far the study is: a resumed search must not propose its first points again
        self.study.sampler = optuna.samplers.TPESampler(seed=len(self.study.trials), n_startup_trials=8)
        self._check_same()
        self._requeue()

    def _check_same(self) -> None:
        said = sorted([*self.words, *(f"{key}={searched}" for key, searched in self.space.items())])
        before = self.study.user_attrs.get("search")
        if before is None:
            self.study.set_user_attr("search", said)
        elif before != said:
            raise RobotRLError(
                f"{self.root} holds another search: {' '.join(before)}. Repeat these words to continue it, or choose "
                "another run_dir=."
            )

    def _requeue(self) -> None:
        """Trials that an earlier process left running go first, and continue in their own directories."""
        state = self.optuna.trial.TrialState
        for trial in self.study.get_trials(states=(state.RUNNING,)):
            self.study.tell(trial.number, state=state.FAIL)
            home = trial.user_attrs.get("home", f"trial-{trial.number:04d}")
            self.study.enqueue_trial(trial.params, user_attrs={"home": home})

    @property
    def done(self) -> int:
        """Trials with a value, or pruned."""
        state = self.optuna.trial.TrialState
        return len(self.study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED)))

    def run(self, trials: int) -> int:
        """Make trials until the study has `trials` of them; returns 0, or `STOPPED` after a Ctrl-C."""
        state = self.optuna.trial.TrialState
        while self.done < trials:
            trial = self.study.ask()
            chosen = {key: searched.suggest(trial, key) for key, searched in self.space.items()}
            if "home" not in trial.user_attrs:
                trial.set_user_attr("home", f"trial-{trial.number:04d}")
            words = [f"{key}={value}" for key, value in chosen.items()]
            self._say(f"trial {self.done + 1} of {trials}: {' '.join(words)}")
            try:
                value = self._trial(trial, words)
            except RobotRLError as error:
                self.study.tell(trial, state=state.FAIL)
                raise RobotRLError(f"The trial with {' '.join(words)} cannot run: {error}") from error
            if value is None:
                return STOPPED
            pruned = value == float("-inf")
            self.study.tell(trial, None if pruned else value, state=state.PRUNED if pruned else state.COMPLETE)
            self._say("  pruned" if pruned else f"  {self._score(trial.user_attrs['home'])}")
        return 0

    def _trial(self, trial: Any, words: list[str]) -> float | None:
        """The value of one trial; None where it was stopped, -inf where it was pruned."""
        scores = []
        for seed in range(self.seeds):
            home = self.root / trial.user_attrs["home"] / f"seed-{seed}"
            known = last_evaluation(home) if finished_env_steps(home) else None  # an earlier process did this seed
            score = None if known is None else known.mean
            if score is None:
                score = self._train(trial if seed == 0 else None, [*self.words, *words, f"seed={seed}"], home)
            if score is None or score == float("-inf"):
                return score
            scores.append(score)
        return sum(scores) / len(scores)

    def _train(self, trial: Any, words: list[str], home: Path) -> float | None:
        if exists(home):
            job = Run.resume(home, named_classes(words))
        else:
            job = Run.create(compose([*words, "video=false", f"run_dir={home}"]), ["robotrl", "tune", *words])
        pruned, value = False, float("-inf")

        def report(iteration: int, metrics: Metrics) -> None:
            nonlocal pruned, value
            if "eval/return" in metrics:
                value = float(metrics["eval/return"])
                if trial is not None:
                    trial.report(value, job.progress.env_steps)
                    pruned = trial.should_prune()

        with job:
            parts = job.parts()
            parts["hooks"] = [*parts["hooks"], report]
            parts["stop"] = lambda: pruned or job.stop()
            train(**parts)
            if pruned and job.progress.fraction < 1.0:
                return float("-inf")
            return None if finish(job) == STOPPED else value

    def _score(self, home: str) -> str:
        """The value of a complete trial with its uncertainty."""
        results = [last_evaluation(self.root / home / f"seed-{seed}") for seed in range(self.seeds)]
        found = [result for result in results if result is not None]
        value = mean([result.mean for result in found])
        low, high = found[0].mean_interval if len(found) == 1 else bootstrap_interval([r.mean for r in found])
        over = "episodes" if len(found) == 1 else "seeds"
        n = f"n = {found[0].n} episodes, seeds 0..{len(found) - 1}" if len(found) > 1 else f"n = {found[0].n}, seed 0"
        return f"return {value:.1f} [{low:.1f}, {high:.1f}] ({n}; 95 % bootstrap over {over})"

    def best(self) -> str | None:
        """The best trial and the command that trains with its values; None before the first complete one."""
        try:
            best = self.study.best_trial
        except ValueError:
            return None
        values = [f"{key}={value}" for key, value in best.params.items()]
        score = self._score(best.user_attrs["home"])
        return f"best of {self.done} trials: {score}\n  {' '.join(['robotrl train', *self.words, *values])}"
