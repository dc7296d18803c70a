"""Show that the tests notice: apply one known mistake at a time and see which test catches it.

    python tests/mutants.py            all mutants, some six minutes on two idle cores
    python tests/mutants.py vat ema    those whose name contains one of the words

Each mutant is applied to a copy of the packages in a temporary folder, and the quick tests of the
mutated file run there. The exit code is 1 if a mutant survives, if one cannot be run, or if the
text it replaces does not occur exactly once. Most are mistakes that published code has made.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("ssl_core", "search_spaces", "tune_ssl")
COPIED = (*PACKAGES, "tests", "pyproject.toml")


class Mutant(NamedTuple):
    """One mistake: in ``file``, ``old`` becomes ``new``."""

    name: str
    file: str
    old: str
    new: str


REFERENCES = "tests/ssl_core/test_algorithm_references.py"
CONTRACT = "tests/contracts/test_algorithms.py"
TRAININGS = "tests/contracts/test_trainings.py"
CAPTURE = "tests/ssl_core/test_capture.py"
SPACES = "tests/contracts/test_spaces.py"
MODELS = "tests/ssl_core/test_models.py"
WHITENING = "tests/ssl_core/test_data_whitening.py"
RUNNING = "tests/ssl_core/test_running_statistics.py"
PROTOCOL = "tests/tune_ssl/test_protocol.py"
STATISTICS = "tests/tune_ssl/statistics"
CONDITIONS = "tests/ssl_core/test_data_conditions.py"

# The tests of a file; those that know it best first, because the first failure ends a run.
TESTS = {
    "ssl_core/divergences.py": (
        "tests/ssl_core/test_divergences.py",
        "tests/contracts/test_divergences.py",
    ),
    "ssl_core/targets.py": ("tests/ssl_core/test_targets.py",),
    "ssl_core/schedules.py": ("tests/ssl_core/test_schedules.py",),
    "ssl_core/mixing.py": ("tests/ssl_core/test_mixing.py",),
    "ssl_core/data/prepare.py": (
        "tests/ssl_core/test_data_division.py",
        CONDITIONS,
        WHITENING,
    ),
    "tune_ssl/statistics/folds.py": (STATISTICS + "/test_folds.py",),
    "tune_ssl/cross_validation.py": ("tests/tune_ssl/test_cross_validation.py",),
    "ssl_core/published.py": ("tests/ssl_core/test_published.py", PROTOCOL),
    "ssl_core/names.py": ("tests/contracts/test_names.py",),
    "ssl_core/parameters.py": ("tests/contracts/test_parameters.py", RUNNING),
    "tune_ssl/protocol.py": (PROTOCOL,),
    "tune_ssl/run.py": (PROTOCOL, "tests/tune_ssl/test_compare.py"),
    "ssl_core/models/batch_norm.py": (MODELS, RUNNING),
    "ssl_core/models/ema.py": (MODELS,),
    "ssl_core/models/wide_resnet.py": (MODELS,),
    "ssl_core/algorithms/common.py": (REFERENCES, CONTRACT),
    "ssl_core/algorithms/supervised.py": (REFERENCES, CONTRACT),
    "ssl_core/algorithms/pseudo_label.py": (REFERENCES, CONTRACT),
    "ssl_core/algorithms/pi_model.py": (REFERENCES, CONTRACT),
    "ssl_core/algorithms/vat.py": (REFERENCES, CONTRACT, "tests/ssl_core/test_device.py"),
    "ssl_core/training/device.py": ("tests/ssl_core/test_device.py",),
    "ssl_core/algorithms/mean_teacher.py": (REFERENCES, CONTRACT),
    "ssl_core/algorithms/ict.py": (REFERENCES, CONTRACT),
    "ssl_core/algorithms/mixmatch.py": (REFERENCES, CONTRACT),
    "ssl_core/data/augment.py": (TRAININGS, WHITENING),
    "ssl_core/data/whitening.py": (WHITENING,),
    "ssl_core/training/classifier.py": (RUNNING,),
    "ssl_core/training/loop.py": (TRAININGS, CAPTURE, RUNNING),
    "ssl_core/training/step.py": (TRAININGS, CAPTURE, RUNNING, "tests/ssl_core/test_compiled.py"),
    "ssl_core/training/seeds.py": (TRAININGS,),
    "ssl_core/training/compiled.py": ("tests/ssl_core/test_compiled.py",),
    "search_spaces/common.py": (SPACES, PROTOCOL),
    "search_spaces/joint.py": (SPACES, "tests/tune_ssl/test_workflows.py"),
    "ssl_core/data/pools.py": (CONDITIONS,),
    "ssl_core/data/classes.py": (CONDITIONS,),
    "ssl_core/data/splits.py": (
        CONDITIONS,
        "tests/ssl_core/test_data_splits.py",
        "tests/ssl_core/test_data_division.py",
    ),
    "tune_ssl/asha.py": ("tests/tune_ssl/test_asha.py",),
    "tune_ssl/best.py": ("tests/tune_ssl/test_best.py",),
    "tune_ssl/journal.py": ("tests/tune_ssl/test_journal.py",),
    "tune_ssl/sampler.py": ("tests/tune_ssl/test_sampler.py",),
    "tune_ssl/parzen.py": ("tests/tune_ssl/test_parzen.py",),
    "tune_ssl/simulator.py": ("tests/tune_ssl/test_simulator.py",),
    "tune_ssl/statistics/crossed.py": (
        STATISTICS + "/test_crossed.py",
        STATISTICS + "/test_cells.py",
    ),
    "tune_ssl/statistics/cells.py": (STATISTICS + "/test_cells.py",),
    "tune_ssl/statistics/letters.py": (STATISTICS + "/test_letters.py",),
    "tune_ssl/statistics/selection.py": (STATISTICS + "/test_selection.py",),
    "tune_ssl/statistics/power.py": (STATISTICS + "/test_power.py",),
    "tune_ssl/statistics/repeats.py": (STATISTICS + "/test_repeats.py",),
    "tune_ssl/statistics/search_size.py": (STATISTICS + "/test_search_size.py",),
    "tune_ssl/statistics/importance.py": (STATISTICS + "/test_importance.py",),
    "tune_ssl/statistics/flatness.py": (STATISTICS + "/test_flatness.py",),
    "tune_ssl/views/report.py": ("tests/tune_ssl/test_analysis.py",),
    "tune_ssl/analysis.py": ("tests/tune_ssl/test_analysis.py",),
    "tune_ssl/storage.py": ("tests/tune_ssl/test_storage.py",),
    "tune_ssl/study.py": (
        "tests/tune_ssl/test_study.py",
        "tests/tune_ssl/test_workflows.py",
        "tests/tune_ssl/test_driver.py",
    ),
    "tune_ssl/trial.py": ("tests/tune_ssl/test_trial.py",),
    "tune_ssl/warm_start.py": ("tests/tune_ssl/test_warm_start.py",),
    "ssl_core/data/folder.py": ("tests/ssl_core/test_data_folder.py",),
    "tune_ssl/workflows/opening.py": (
        "tests/tune_ssl/test_workflows.py",
        "tests/tune_ssl/test_compare.py",
    ),
    "tune_ssl/workflows/results.py": ("tests/tune_ssl/test_compare.py",),
    "tune_ssl/on_ray/cluster.py": ("tests/tune_ssl/test_cluster.py",),
    "tune_ssl/on_ray/nodes.py": ("tests/tune_ssl/test_nodes.py",),
    "tune_ssl/on_ray/scheduler.py": ("tests/tune_ssl/test_nodes.py",),
    "tune_ssl/workflows/plan.py": ("tests/tune_ssl/test_workflows.py",),
    "tune_ssl/driver.py": ("tests/tune_ssl/test_driver.py", "tests/tune_ssl/test_confirm.py"),
    "tune_ssl/drivers.py": ("tests/tune_ssl/test_drivers.py",),
    "tune_ssl/retraining.py": ("tests/tune_ssl/test_retraining.py",),
    "tune_ssl/ledger.py": ("tests/tune_ssl/test_ledger.py",),
    "tune_ssl/confirmation.py": ("tests/tune_ssl/test_confirmation.py",),
    "tune_ssl/sealed.py": ("tests/tune_ssl/test_sealed.py",),
    "tune_ssl/workflows/confirm.py": ("tests/tune_ssl/test_confirm.py",),
    "tune_ssl/workflows/retrain.py": ("tests/tune_ssl/test_confirm.py",),
    "tune_ssl/views/confirmed.py": ("tests/tune_ssl/test_confirmed.py",),
    "tune_ssl/views/judged.py": ("tests/tune_ssl/test_confirmed.py",),
    "tune_ssl/comparison.py": (
        "tests/tune_ssl/test_comparison.py",
        "tests/tune_ssl/test_compare.py",
    ),
    "tune_ssl/references.py": ("tests/tune_ssl/test_references.py",),
    "tune_ssl/workflows/driving.py": (
        "tests/tune_ssl/test_compare.py",
        "tests/tune_ssl/test_drivers.py",
        "tests/tune_ssl/test_workflows.py",
    ),
    "tune_ssl/workflows/compare.py": ("tests/tune_ssl/test_compare.py",),
    "tune_ssl/worker.py": ("tests/tune_ssl/test_worker.py",),
    "tune_ssl/views/export.py": ("tests/tune_ssl/test_cli.py",),
    "tune_ssl/workflows/settings.py": ("tests/tune_ssl/test_settings.py",),
}

MUTANTS = (
    # Protocol oliver: what is whitened, on what it is fitted, which statistics are evaluated with.
    Mutant(
        "oliver: whitening fitted on validation images too",
        "ssl_core/data/prepare.py",
        "return fit_whitening(images, unlabeled)",
        "return fit_whitening(images, np.arange(len(images)))",
    ),
    Mutant(
        "oliver: PCA whitening in the place of ZCA",
        "ssl_core/data/whitening.py",
        "matrix = (vectors / np.sqrt(values)) @ vectors.T",
        "matrix = vectors / np.sqrt(values)",
    ),
    Mutant(
        "oliver: whitening without its ridge",
        "ssl_core/data/whitening.py",
        "covariance + RIDGE * np.eye(inputs)",
        "covariance + 1e-10 * np.eye(inputs)",
    ),
    Mutant(
        "oliver: variance in the place of deviation",
        "ssl_core/data/whitening.py",
        "(vectors / np.sqrt(values))",
        "(vectors / values)",
    ),
    Mutant(
        "oliver: images keep their own mean on the device",
        "ssl_core/data/augment.py",
        "rows = rows - rows.mean(dim=1, keepdim=True)",
        "rows = rows - rows.mean()",
    ),
    Mutant(
        "oliver: whitened without subtracting the training images' mean",
        "ssl_core/data/augment.py",
        "(CONTRAST_NORM * rows / norms - whitening.mean) @ whitening.scale",
        "(CONTRAST_NORM * rows / norms) @ whitening.scale",
    ),
    Mutant(
        "oliver: moved before it is whitened",
        "ssl_core/data/augment.py",
        "view = _moved(normalise(images, preprocessing), augmentation, generator)",
        "view = normalise(_moved(images, augmentation, generator), preprocessing)",
    ),
    Mutant(
        "oliver: running statistics recomputed before they are evaluated with",
        "ssl_core/training/loop.py",
        "if self.config.batch_norm_momentum is None or network is not self.evaluated_network:",
        "if True:",
    ),
    Mutant(
        "oliver: running statistics of labeled images alone",
        "ssl_core/training/step.py",
        "images = torch.cat([batch.labeled[0], batch.unlabeled[0]])",
        "images = batch.labeled[0]",
    ),
    Mutant(
        "oliver: the student's statistics move where the average is evaluated",
        "ssl_core/training/step.py",
        "update_statistics(self.evaluated, self._norms, images, momentum)",
        "update_statistics(self.student, batch_norms(self.student), images, momentum)",
    ),
    Mutant(
        "oliver: momentum and decay exchanged",
        "ssl_core/models/batch_norm.py",
        "with _momentum(norms, momentum):",
        "with _momentum(norms, 1.0 - momentum):",
    ),
    Mutant(
        "oliver: a training too short for its statistics",
        "ssl_core/parameters.py",
        "if max_steps < fewest:",
        "if max_steps < fewest - 1:",
    ),
    Mutant(
        "oliver: a file of weights without its whitening",
        "ssl_core/training/classifier.py",
        "save(tensors | card.tensors(),",
        "save(tensors,",
    ),
    Mutant(
        "oliver: a file stands over the protocol flag",
        "tune_ssl/protocol.py",
        'return {**given, **protocol_settings(flags["protocol"], dataset), **_but_protocol(flags)}',
        'return {**protocol_settings(flags["protocol"], dataset), **given, **_but_protocol(flags)}',
    ),
    Mutant(
        "oliver: a protocol stands over single flags",
        "tune_ssl/protocol.py",
        'return {**given, **protocol_settings(flags["protocol"], dataset), **_but_protocol(flags)}',
        'return {**given, **flags, **protocol_settings(flags["protocol"], dataset)}',
    ),
    Mutant(
        "oliver: settings of an earlier version taken for changed ones",
        "tune_ssl/run.py",
        "before = added_defaults() | dict(before)",
        "before = dict(before)",
    ),
    Mutant(
        "oliver: rungs before the ramp's end",
        "tune_ssl/run.py",
        "if first < earliest[what]:",
        "if first < 0:",
    ),
    Mutant(
        "oliver: VAT with its paper's values",
        "ssl_core/published.py",
        "return sorted(rows, key=lambda row: row.source != source)",
        "return rows",
    ),
    Mutant(
        "oliver: weight decay searched though it is fixed",
        "search_spaces/common.py",
        "if context.weight_decay is not None:",
        "if False:",
    ),
    # The student gets no gradient: what two of three public libraries ship as Mean Teacher.
    Mutant(
        "best: Fisher's test one-sided",
        "tune_ssl/best.py",
        "        term *= count * (others - correct + count) / ((images - count + 1) * (correct - count + 1))\n    return min(1.0, 2 * tail)",
        "        term *= count * (others - correct + count) / ((images - count + 1) * (correct - count + 1))\n    return min(1.0, tail)",
    ),
    Mutant(
        "best: pairs of different images",
        "tune_ssl/best.py",
        "same_images = _division(first) == _division(second)",
        "same_images = True",
    ),
    Mutant(
        "splits: a division changes how many of a class are trained on",
        "ssl_core/data/splits.py",
        "[random.permutation(own)[: labeled[own].sum()] for own",
        "[random.permutation(own)[: labeled.sum() // 3] for own",
    ),
    Mutant(
        "splits: trained on the fold that judges",
        "ssl_core/data/splits.py",
        "random.permutation(own[folds[own] != fold])",
        "random.permutation(own)",
    ),
    Mutant(
        "prepare: what is measured on stays in the pool",
        "ssl_core/data/prepare.py",
        "    unlabeled = np.setdiff1d(pool, known[held_out])",
        "    unlabeled = pool",
    ),
    Mutant(
        "trial: the journal does not say whose division it was",
        "tune_ssl/trial.py",
        "        if division is not None:\n",
        "        if division is None:\n",
    ),
    Mutant(
        "trial: workers do not divide anew",
        "tune_ssl/trial.py",
        "divided(drawn, config.data), store",
        "drawn, store",
    ),
    Mutant(
        "folds: the uncorrected t",
        "tune_ssl/statistics/folds.py",
        "(1 / given.size + 1 / (folds - 1))",
        "(1 / given.size)",
    ),
    Mutant(
        "folds: corrected by 1/K",
        "tune_ssl/statistics/folds.py",
        "1 / (folds - 1))",
        "1 / folds)",
    ),
    Mutant(
        "retraining: one seed for all folds",
        "tune_ssl/retraining.py",
        "            seed=FIRST_DRAW + folds * repeat + fold - 1,",
        "            seed=FIRST_DRAW + repeat,",
    ),
    Mutant(
        "selection: chance of draws of their own as of one",
        "tune_ssl/statistics/selection.py",
        "once = spread if paired else",
        "once = spread if True else",
    ),
    Mutant(
        "cross-validation: a fold in the place of another",
        "tune_ssl/cross_validation.py",
        "folds[repeat] == fold + 1]",
        "folds[repeat] == count - fold]",
    ),
    Mutant(
        "cross-validation: differences hold one at a time",
        "tune_ssl/cross_validation.py",
        "level=1 - (1 - LEVEL) / (len(scores) - 1)",
        "level=LEVEL",
    ),
    Mutant(
        "student detached: every consistency",
        "ssl_core/algorithms/common.py",
        "return divergence(target, log_probabilities(logits)).mean()",
        "return divergence(target, log_probabilities(logits.detach())).mean()",
    ),
    Mutant(
        "student detached: pseudo_label",
        "ssl_core/algorithms/pseudo_label.py",
        "divergence(hard_pseudo_labels(prediction), log_probabilities(logits))",
        "divergence(hard_pseudo_labels(prediction), log_probabilities(logits.detach()))",
    ),
    Mutant(
        "student detached: pi_model",
        "ssl_core/algorithms/pi_model.py",
        "loss(self.divergence, target_logits, logits),",
        "loss(self.divergence, target_logits, logits.detach()),",
    ),
    Mutant(
        "student detached: vat",
        "ssl_core/algorithms/vat.py",
        "loss(self.divergence, clean_logits, adversarial_logits),",
        "loss(self.divergence, clean_logits, adversarial_logits.detach()),",
    ),
    Mutant(
        "student detached: mean_teacher",
        "ssl_core/algorithms/mean_teacher.py",
        "loss(self.divergence, teacher_logits, logits),",
        "loss(self.divergence, teacher_logits, logits.detach()),",
    ),
    Mutant(
        "student detached: ict",
        "ssl_core/algorithms/ict.py",
        "loss(self.divergence, target, student_logits),",
        "loss(self.divergence, target, student_logits.detach()),",
    ),
    Mutant(
        "student detached: mixmatch",
        "ssl_core/algorithms/mixmatch.py",
        "targets[num_labeled:], logits[num_labeled:])",
        "targets[num_labeled:], logits[num_labeled:].detach())",
    ),
    Mutant(
        "student and teacher exchanged: mean_teacher",
        "ssl_core/algorithms/mean_teacher.py",
        "unlabeled_logits = student(batch.unlabeled[1])",
        "unlabeled_logits = teacher(batch.unlabeled[1])",
    ),
    # Targets are constants. Each method stops the gradient twice: no graph is built in the pass,
    # and the loss detaches what it is given. (Those of pseudo_label are hard: nothing to stop.)
    Mutant(
        "target not detached: loss of pi_model",
        "ssl_core/algorithms/pi_model.py",
        "probabilities(target_logits.detach())",
        "probabilities(target_logits)",
    ),
    Mutant(
        "target not detached: pass of pi_model",
        "ssl_core/algorithms/pi_model.py",
        "with torch.no_grad():",
        "with torch.enable_grad():",
    ),
    Mutant(
        "target not detached: loss of vat",
        "ssl_core/algorithms/vat.py",
        "return consistency(divergence, probabilities(clean_logits.detach()), adversarial_logits)",
        "return consistency(divergence, probabilities(clean_logits), adversarial_logits)",
    ),
    Mutant(
        "target not detached: pass of vat",
        "ssl_core/algorithms/vat.py",
        "with torch.set_grad_enabled(self.config.entropy_weight > 0):",
        "with torch.enable_grad():",
    ),
    Mutant(
        "teacher not detached: loss of mean_teacher",
        "ssl_core/algorithms/mean_teacher.py",
        "probabilities(teacher_logits.detach())",
        "probabilities(teacher_logits)",
    ),
    Mutant(
        "teacher not detached: pass of mean_teacher",
        "ssl_core/algorithms/mean_teacher.py",
        "with torch.no_grad():",
        "with torch.enable_grad():",
    ),
    Mutant(
        "teacher not detached: loss of ict",
        "ssl_core/algorithms/ict.py",
        "return consistency(divergence, target.detach(), student_logits)",
        "return consistency(divergence, target, student_logits)",
    ),
    Mutant(
        "teacher not detached: pass of ict",
        "ssl_core/algorithms/ict.py",
        "with torch.no_grad():",
        "with torch.enable_grad():",
    ),
    Mutant(
        "target not detached: guesses of mixmatch",
        "ssl_core/algorithms/mixmatch.py",
        "probabilities(logits.detach())",
        "probabilities(logits)",
    ),
    Mutant(
        "target not detached: loss of mixmatch",
        "ssl_core/algorithms/mixmatch.py",
        "targets = targets.detach()",
        "targets = targets.clone()",
    ),
    Mutant(
        "target not detached: pass of mixmatch",
        "ssl_core/algorithms/mixmatch.py",
        "with torch.no_grad():",
        "with torch.enable_grad():",
    ),
    # Softmax of probabilities.
    Mutant(
        "softmax twice: prediction of every consistency",
        "ssl_core/algorithms/common.py",
        "return divergence(target, log_probabilities(logits)).mean()",
        "return divergence(target, log_probabilities(probabilities(logits))).mean()",
    ),
    Mutant(
        "softmax twice: prediction of pseudo_label",
        "ssl_core/algorithms/pseudo_label.py",
        "divergence(hard_pseudo_labels(prediction), log_probabilities(logits))",
        "divergence(hard_pseudo_labels(prediction), log_probabilities(probabilities(logits)))",
    ),
    Mutant(
        "softmax twice: confidence of pseudo_label",
        "ssl_core/algorithms/pseudo_label.py",
        "prediction = probabilities(logits.detach())",
        "prediction = probabilities(probabilities(logits.detach()))",
    ),
    Mutant(
        "softmax twice: target of pi_model",
        "ssl_core/algorithms/pi_model.py",
        "probabilities(target_logits.detach())",
        "probabilities(probabilities(target_logits.detach()))",
    ),
    Mutant(
        "softmax twice: target of vat",
        "ssl_core/algorithms/vat.py",
        "return consistency(divergence, probabilities(clean_logits.detach()), adversarial_logits)",
        "return consistency(divergence, probabilities(probabilities(clean_logits.detach())), adversarial_logits)",
    ),
    Mutant(
        "softmax twice: direction of vat",
        "ssl_core/algorithms/vat.py",
        "                probabilities(clean_logits.detach()),\n",
        "                probabilities(probabilities(clean_logits.detach())),\n",
    ),
    Mutant(
        "softmax twice: target of mean_teacher",
        "ssl_core/algorithms/mean_teacher.py",
        "probabilities(teacher_logits.detach())",
        "probabilities(probabilities(teacher_logits.detach()))",
    ),
    Mutant(
        "softmax twice: target of ict",
        "ssl_core/algorithms/ict.py",
        "prediction = probabilities(teacher_logits)",
        "prediction = probabilities(probabilities(teacher_logits))",
    ),
    Mutant(
        "softmax twice: guesses of mixmatch",
        "ssl_core/algorithms/mixmatch.py",
        "probabilities(logits.detach())",
        "probabilities(probabilities(logits.detach()))",
    ),
    Mutant(
        "softmax twice: labeled cross-entropy",
        "ssl_core/algorithms/common.py",
        "nll_loss(log_probabilities(logits), labels)",
        "nll_loss(log_probabilities(probabilities(logits)), labels)",
    ),
    # Divergences.
    Mutant(
        "kl swapped",
        "ssl_core/divergences.py",
        "return (torch.xlogy(target, target) - target * log_prediction).sum(dim=1)",
        "return (log_prediction.exp() * (log_prediction - target.log())).sum(dim=1)",
    ),
    Mutant(
        "reverse_kl swapped",
        "ssl_core/divergences.py",
        "return (log_prediction.exp() * (log_prediction - log_target)).sum(dim=1)",
        "return (target * (log_target - log_prediction)).sum(dim=1)",
    ),
    Mutant(
        "reverse_kl with another floor",
        "ssl_core/divergences.py",
        "REVERSE_KL_FLOOR = 1e-7",
        "REVERSE_KL_FLOOR = 1e-8",
    ),
    Mutant(
        "mse summed over classes",
        "ssl_core/divergences.py",
        ".square().mean(dim=1)",
        ".square().sum(dim=1)",
    ),
    Mutant(
        "l1 summed over classes",
        "ssl_core/divergences.py",
        ".abs().mean(dim=1)",
        ".abs().sum(dim=1)",
    ),
    Mutant(
        "kl averaged over classes",
        "ssl_core/divergences.py",
        "target * log_prediction).sum(dim=1)",
        "target * log_prediction).mean(dim=1)",
    ),
    Mutant(
        "js averaged over classes",
        "ssl_core/divergences.py",
        "return 0.5 * (target_part + prediction_part).sum(dim=1)",
        "return 0.5 * (target_part + prediction_part).mean(dim=1)",
    ),
    Mutant(
        "js without its half",
        "ssl_core/divergences.py",
        "return 0.5 * (target_part + prediction_part).sum(dim=1)",
        "return (target_part + prediction_part).sum(dim=1)",
    ),
    Mutant(
        "js with a mixture of one side twice",
        "ssl_core/divergences.py",
        "torch.logaddexp(target.log(), log_prediction)",
        "torch.logaddexp(log_prediction, log_prediction)",
    ),
    Mutant(
        "js with a mixture of probabilities, which underflows",
        "ssl_core/divergences.py",
        "torch.logaddexp(target.log(), log_prediction) - math.log(2.0)",
        "(0.5 * (target + log_prediction.exp())).log()",
    ),
    Mutant(
        "kl with log 0",
        "ssl_core/divergences.py",
        "return (torch.xlogy(target, target) - target * log_prediction).sum(dim=1)",
        "return (target * target.log() - target * log_prediction).sum(dim=1)",
    ),
    Mutant(
        "notebook_kl given a logarithm",
        "ssl_core/divergences.py",
        "return (torch.xlogy(target, target) - target * log_prediction.exp()).mean(dim=1)",
        "return (torch.xlogy(target, target) - target * log_prediction).mean(dim=1)",
    ),
    Mutant(
        "notebook_js without the second softmax",
        "ssl_core/divergences.py",
        "log_squashed_prediction = torch.log_softmax(log_prediction.exp(), dim=1)",
        "log_squashed_prediction = log_prediction",
    ),
    # Targets and masks.
    Mutant(
        "sharpening by T instead of 1/T",
        "ssl_core/targets.py",
        "probabilities.log() / temperature",
        "probabilities.log() * temperature",
    ),
    Mutant(
        "threshold left out of what it keeps",
        "ssl_core/targets.py",
        ">= threshold",
        "> threshold",
    ),
    Mutant(
        "unconfident images kept",
        "ssl_core/targets.py",
        ">= threshold",
        "< threshold",
    ),
    Mutant(
        "divided by the images kept, not by all",
        "ssl_core/algorithms/pseudo_label.py",
        "return (mask * distance).mean(), mask.mean()",
        "return (mask * distance).sum() / mask.sum().clamp_min(1.0), mask.mean()",
    ),
    Mutant(
        "mask ignored",
        "ssl_core/algorithms/pseudo_label.py",
        "return (mask * distance).mean(), mask.mean()",
        "return distance.mean(), mask.mean()",
    ),
    Mutant(
        "reverse_kl accepted against one-hot targets",
        "ssl_core/algorithms/pseudo_label.py",
        "one_hot_targets=True",
        "one_hot_targets=False",
    ),
    # Which image goes where.
    Mutant(
        "pi_model compares a view with itself",
        "ssl_core/algorithms/pi_model.py",
        "unlabeled_logits = student(batch.unlabeled[1])",
        "unlabeled_logits = student(batch.unlabeled[0])",
    ),
    Mutant(
        "mean_teacher shows both networks one view",
        "ssl_core/algorithms/mean_teacher.py",
        "teacher_logits = teacher(batch.unlabeled[0])",
        "teacher_logits = teacher(batch.unlabeled[1])",
    ),
    Mutant(
        "mean_teacher asks the student for the target",
        "ssl_core/algorithms/mean_teacher.py",
        "teacher_logits = teacher(batch.unlabeled[0])",
        "teacher_logits = student(batch.unlabeled[0])",
    ),
    Mutant(
        "ict asks the student for the target",
        "ssl_core/algorithms/ict.py",
        "teacher_logits = teacher(images)",
        "teacher_logits = student(images)",
    ),
    Mutant(
        "ict does not mix the target",
        "ssl_core/algorithms/ict.py",
        "return mix(prediction, prediction[order], coefficients)",
        "return prediction",
    ),
    Mutant(
        "ict mixes logits unasked",
        "ssl_core/algorithms/ict.py",
        "    if mix_logits:",
        "    if not mix_logits:",
    ),
    Mutant(
        "ict draws one lambda per batch",
        "ssl_core/algorithms/ict.py",
        "return order, draw_mixing_coefficients(self.numbers.mixup_alpha, count, generator)",
        "return order, draw_mixing_coefficients(self.numbers.mixup_alpha, 1, generator).repeat(count)",
    ),
    # VAT.
    Mutant(
        "vat: xi in absolute units",
        "ssl_core/algorithms/vat.py",
        "xi=XI_RELATIVE * root_inputs",
        "xi=XI_RELATIVE",
    ),
    Mutant(
        "vat: eps in absolute units",
        "ssl_core/algorithms/vat.py",
        "eps=self.numbers.eps_relative * root_inputs",
        "eps=self.numbers.eps_relative",
    ),
    Mutant(
        "vat: random instead of adversarial direction",
        "ssl_core/algorithms/vat.py",
        "return unit_rows(gradient) * eps",
        "return unit_rows(directions) * eps",
    ),
    Mutant(
        "vat: the opposite direction",
        "ssl_core/algorithms/vat.py",
        "return unit_rows(gradient) * eps",
        "return -unit_rows(gradient) * eps",
    ),
    Mutant(
        "vat: random direction not of unit length",
        "ssl_core/algorithms/vat.py",
        "(xi * unit_rows(directions))",
        "(xi * directions)",
    ),
    Mutant(
        "vat: one norm for the whole batch",
        "ssl_core/algorithms/vat.py",
        "rows = directions.flatten(1)",
        "rows = directions.flatten(0).unsqueeze(0)",
    ),
    Mutant(
        "vat: direction found under autocast",
        "ssl_core/algorithms/vat.py",
        "with torch.autocast(images.device.type, enabled=False), ",
        "with torch.enable_grad(), ",
    ),
    Mutant(
        "vat: direction always found by kl",
        "ssl_core/algorithms/vat.py",
        "perturbation = adversarial_perturbation(\n                self.divergence,",
        'perturbation = adversarial_perturbation(\n                DIVERGENCES["kl"],',
    ),
    # MixMatch.
    Mutant(
        "mixmatch: lambda' without max",
        "ssl_core/algorithms/mixmatch.py",
        "coefficients = keep_first_dominant(drawn)",
        "coefficients = drawn",
    ),
    Mutant(
        "lambda' = min",
        "ssl_core/mixing.py",
        "torch.maximum(coefficients, 1.0 - coefficients)",
        "torch.minimum(coefficients, 1.0 - coefficients)",
    ),
    Mutant(
        "mixmatch: no sharpening",
        "ssl_core/algorithms/mixmatch.py",
        "return sharpen(torch.stack(predictions).mean(dim=0), temperature)",
        "return torch.stack(predictions).mean(dim=0)",
    ),
    Mutant(
        "mixmatch: sharpened before the average",
        "ssl_core/algorithms/mixmatch.py",
        "return sharpen(torch.stack(predictions).mean(dim=0), temperature)",
        "return torch.stack([sharpen(own, temperature) for own in predictions]).mean(dim=0)",
    ),
    Mutant(
        "mixmatch: guesses given to the wrong images",
        "ssl_core/algorithms/mixmatch.py",
        "guesses.repeat(config.num_guesses, 1)",
        "guesses.repeat_interleave(config.num_guesses, 0)",
    ),
    Mutant(
        "mixmatch: targets not mixed with their partners'",
        "ssl_core/algorithms/mixmatch.py",
        "mix(targets, targets[order], coefficients)",
        "targets",
    ),
    Mutant(
        "mixmatch: labels mixed with labeled images only",
        "ssl_core/algorithms/mixmatch.py",
        "order = torch.randperm(len(images), generator=generator, device=generator.device)",
        "order = torch.arange(len(images)).roll(1)",
    ),
    Mutant(
        "mixmatch: one labeled row short",
        "ssl_core/algorithms/mixmatch.py",
        "loss(self.divergence, logits, mixed_targets, len(batch.labels))",
        "loss(self.divergence, logits, mixed_targets, len(batch.labels) - 1)",
    ),
    Mutant(
        "mixmatch: no ramp",
        "ssl_core/algorithms/mixmatch.py",
        "numbers.unlabeled_weight * linear_ramp_up(progress, numbers.ramp_fraction)",
        "torch.full_like(progress, numbers.unlabeled_weight)",
    ),
    Mutant(
        "coefficients from gamma variates that underflow",
        "ssl_core/mixing.py",
        "draws = torch._sample_dirichlet(concentration, generator=generator)",
        "draws = torch._standard_gamma(concentration.float(), generator=generator)\n"
        "    draws = draws / draws.sum(dim=1, keepdim=True)",
    ),
    Mutant(
        "coefficients of another Beta",
        "ssl_core/mixing.py",
        "alpha * torch.ones(count, 2,",
        "2 * alpha * torch.ones(count, 2,",
    ),
    Mutant(
        "coefficients from the global generator",
        "ssl_core/mixing.py",
        "torch._sample_dirichlet(concentration, generator=generator)",
        "torch._sample_dirichlet(concentration)",
    ),
    Mutant(
        "mixing with the shares exchanged",
        "ssl_core/mixing.py",
        "return weight * first + (1.0 - weight) * second",
        "return weight * second + (1.0 - weight) * first",
    ),
    # Entropy minimisation and weights.
    Mutant(
        "entropy ramped with the unlabeled weight",
        "ssl_core/algorithms/common.py",
        "total = total + entropy_weight * entropy_term",
        "total = total + weight * entropy_weight * entropy_term",
    ),
    Mutant(
        "entropy maximised",
        "ssl_core/algorithms/common.py",
        "return -(log_p.exp() * log_p).sum(dim=1).mean()",
        "return (log_p.exp() * log_p).sum(dim=1).mean()",
    ),
    Mutant(
        "entropy averaged over classes",
        "ssl_core/algorithms/common.py",
        "return -(log_p.exp() * log_p).sum(dim=1).mean()",
        "return -(log_p.exp() * log_p).mean(dim=1).mean()",
    ),
    Mutant(
        "entropy accepted for supervised",
        "ssl_core/algorithms/supervised.py",
        "if self.entropy_weight != 0:",
        "if self.entropy_weight < 0:",
    ),
    Mutant(
        "labeled term scaled down at a large unlabeled weight",
        "ssl_core/algorithms/common.py",
        "total = labeled + weight * unlabeled",
        "total = (labeled + weight * unlabeled) / (1.0 + weight)",
    ),
    Mutant(
        "losses in bfloat16",
        "ssl_core/algorithms/common.py",
        "return logits.to(torch.promote_types(logits.dtype, torch.float32))",
        "return logits",
    ),
    # Ramps and schedules.
    Mutant(
        "ramp in absolute steps",
        "ssl_core/training/loop.py",
        "progress = self.step / self.config.max_steps",
        "progress = min(1.0, self.step / 500_000)",
    ),
    Mutant(
        "ramp without its square",
        "ssl_core/schedules.py",
        "torch.exp(-5.0 * remaining.square())",
        "torch.exp(-5.0 * remaining)",
    ),
    Mutant(
        "ramp over the whole budget whatever its fraction",
        "ssl_core/schedules.py",
        "remaining = 1.0 - _part_of(progress, ramp_fraction)",
        "remaining = 1.0 - progress.clamp(0.0, 1.0)",
    ),
    Mutant(
        "linear ramp without an end",
        "ssl_core/schedules.py",
        "return torch.where(progress < ramp_fraction, progress / ramp_fraction, done)",
        "return progress / ramp_fraction",
    ),
    Mutant(
        "cosine down to zero",
        "ssl_core/schedules.py",
        "7.0 * math.pi / 16.0",
        "math.pi / 2.0",
    ),
    # The average and BatchNorm.
    Mutant(
        "ema without warm-up",
        "ssl_core/models/ema.py",
        "return min(1.0 - 1.0 / (updates + 1), decay)",
        "return decay",
    ),
    Mutant(
        "ema warm-up one step late",
        "ssl_core/models/ema.py",
        "warmed_up_decay(self.decay, self.updates - 1)",
        "warmed_up_decay(self.decay, self.updates)",
    ),
    Mutant(
        "ema moves by decay instead of 1 - decay",
        "ssl_core/models/ema.py",
        "return 1.0 - warmed_up_decay",
        "return warmed_up_decay",
    ),
    Mutant(
        "ema wants gradients",
        "ssl_core/models/ema.py",
        ".requires_grad_(False)",
        ".requires_grad_(True)",
    ),
    Mutant(
        "ema updated before the optimiser's step",
        "ssl_core/training/step.py",
        'self._optimizer.step()\n        with record_function("ema"):\n            weight = self._inputs.ema_weight if self._numbers_on_device else self._ema_weight\n            self.ema.move(weight)',
        'weight = self._inputs.ema_weight if self._numbers_on_device else self._ema_weight\n            self.ema.move(weight)\n        with record_function("ema"):\n            self._optimizer.step()',
    ),
    Mutant(
        "a captured step keeps its progress",
        "ssl_core/training/step.py",
        "self._inputs.progress,",
        "torch.tensor((self.ema.updates - 1) / 24),",
    ),
    Mutant(
        "a captured step keeps its learning rate",
        "ssl_core/training/step.py",
        "if not self._numbers_on_device:\n            self._set_rate(rate)",
        "self._set_rate(rate)",
    ),
    Mutant(
        "a captured step keeps its average's weight",
        "ssl_core/training/step.py",
        "weight = self._inputs.ema_weight if self._numbers_on_device else self._ema_weight",
        "weight = self._ema_weight",
    ),
    Mutant(
        "ema buffers stale: statistics not recomputed before evaluation",
        "ssl_core/training/loop.py",
        "recompute_statistics(network, self._statistics_batches())",
        "pass",
    ),
    Mutant(
        "ema buffers stale: only the student's recomputed",
        "ssl_core/training/loop.py",
        "recompute_statistics(network, self._statistics_batches())",
        "recompute_statistics(self.student, self._statistics_batches())",
    ),
    Mutant(
        "statistics of labeled images",
        "ssl_core/training/loop.py",
        "chosen = torch.from_numpy(shared.unlabeled[order.next().numpy()])",
        "chosen = torch.from_numpy(shared.labeled[order.next().numpy() % len(shared.labeled)])",
    ),
    Mutant(
        "statistics not reset",
        "ssl_core/models/batch_norm.py",
        "norm.reset_running_stats()",
        "norm.num_batches_tracked.zero_()",
    ),
    Mutant(
        "statistics with a momentum",
        "ssl_core/models/batch_norm.py",
        "norm.momentum = 1.0 / (number + 1)",
        "norm.momentum = 0.1",
    ),
    Mutant(
        "batch norm with a momentum",
        "ssl_core/models/wide_resnet.py",
        "momentum=0.0",
        "momentum=0.1",
    ),
    Mutant(
        "batch norm with torch's eps",
        "ssl_core/models/wide_resnet.py",
        "BATCH_NORM_EPS = 1e-3",
        "BATCH_NORM_EPS = 1e-5",
    ),
    Mutant(
        "shortcut before the activation",
        "ssl_core/models/wide_resnet.py",
        "self.shortcut(activated)",
        "self.shortcut(features)",
    ),
    # The loop.
    Mutant(
        "one shift per batch",
        "ssl_core/data/augment.py",
        "-max_shift, max_shift + 1, (count, 2), generator",
        "-max_shift, max_shift + 1, (1, 2), generator",
    ),
    Mutant(
        "a captured step begins again and the average keeps its age",
        "ssl_core/training/step.py",
        "        self.ema.updates = 0\n",
        "",
    ),
    Mutant(
        "a captured step begins again and the average keeps its horizon",
        "ssl_core/training/step.py",
        "        self.ema.decay = decay_from_horizon(config.ema_horizon)\n",
        "",
    ),
    Mutant(
        "a captured step begins again and the average keeps its weights",
        "ssl_core/training/step.py",
        "        self.ema.network.load_state_dict(initial)\n",
        "",
    ),
    Mutant(
        "a captured step begins again and the optimiser keeps its moments",
        "ssl_core/training/step.py",
        "moment.zero_()",
        "pass",
    ),
    Mutant(
        "a captured step begins again and the draws go on",
        "ssl_core/training/step.py",
        "generator.set_state(fresh.get_state())",
        "pass",
    ),
    Mutant(
        "a captured step begins again and the numbers stay",
        "ssl_core/training/step.py",
        "self._numbers[name].fill_(value)",
        "pass",
    ),
    Mutant(
        "a captured step begins again and it stays without an end once it diverged",
        "ssl_core/training/step.py",
        "self.finite.fill_(value=True)",
        "pass",
    ),
    Mutant(
        "a captured step begins again and the sums go on",
        "ssl_core/training/step.py",
        "        self.finite.fill_(value=True)\n        self._clear_terms()",
        "        self.finite.fill_(value=True)",
    ),
    Mutant(
        "a captured step serves where entropy minimisation comes in",
        "ssl_core/training/step.py",
        "tuple(value > 0 for value in numbers.values()),",
        "None,",
    ),
    Mutant(
        "a captured step serves another structure of the method",
        "ssl_core/training/step.py",
        "if field.name not in numbers",
        "if False",
    ),
    Mutant(
        "a captured step serves another batch size",
        "ssl_core/training/step.py",
        "if field.name not in (*WRITTEN_ANEW, *UNKNOWN_TO_A_STEP)",
        "if field.name == 'algorithm'",
    ),
    Mutant(
        "no weight decay where the step's numbers are tensors",
        "ssl_core/training/step.py",
        "self._decay_weights()",
        "pass",
    ),
    Mutant(
        "L2 decay in place of the decoupled one, by tensors",
        "ssl_core/training/step.py",
        'if self._config.optimizer == "adamw":\n            torch._foreach',
        "if False:\n            torch._foreach",
    ),
    Mutant(
        "a profiler ends capturing for good",
        "ssl_core/training/step.py",
        "        finally:\n            self._watched = False",
        "        finally:\n            pass",
    ),
    Mutant(
        "a profiler watches replays",
        "ssl_core/training/step.py",
        "or self._watched",
        "",
    ),
    Mutant(
        "a step that an error left is served",
        "ssl_core/training/step.py",
        "step.whole and ",
        "",
    ),
    Mutant(
        "a captured step begins again and normalises as before",
        "ssl_core/training/step.py",
        "self._preprocessing.write(shared.normalisation)",
        "pass",
    ),
    Mutant(
        "a captured step begins again and is of the configuration before",
        "ssl_core/training/step.py",
        "self.algorithm.config = config.method",
        "pass",
    ),
    Mutant(
        "a state is loaded beside what was recorded",
        "ssl_core/training/step.py",
        "        self._forget_capture()\n        self.student.load_state_dict",
        "        self.student.load_state_dict",
    ),
    Mutant(
        "a training goes on after a later one has taken over its step",
        "ssl_core/training/loop.py",
        "self._shared_step.beginnings != self._beginning",
        "False",
    ),
    Mutant(
        "settings: more threads than cores",
        "tune_ssl/workflows/settings.py",
        "config.threads > cores",
        "False",
    ),
    Mutant(
        "a ramp without length is no ramp but nothing",
        "ssl_core/schedules.py",
        "torch.where(progress < ramp_fraction,",
        "torch.where(progress <= ramp_fraction,",
    ),
    Mutant(
        "one view given twice",
        "ssl_core/training/step.py",
        "for _ in range(count)\n        )",
        "for _ in range(1)\n        ) * count",
    ),
    Mutant(
        "labeled and unlabeled augmentation share a stream",
        "ssl_core/training/step.py",
        'self._views(labeled, 1, "labeled_augmentation")',
        'self._views(labeled, 1, "unlabeled_augmentation")',
    ),
    Mutant(
        "further labeled views move the first view of the next step",
        "ssl_core/training/step.py",
        'self.algorithm.labeled_views - 1, "further_labeled_views")',
        'self.algorithm.labeled_views - 1, "labeled_augmentation")',
    ),
    Mutant(
        "method and labeled augmentation share a stream",
        "ssl_core/training/step.py",
        'self._generators["method"],',
        'self._generators["labeled_augmentation"],',
    ),
    Mutant(
        "all streams of a seed alike",
        "ssl_core/training/seeds.py",
        "spawn_key=(STREAMS.index(stream), step)",
        "spawn_key=(0, step)",
    ),
    Mutant(
        "evaluation moves the training's generator",
        "ssl_core/training/loop.py",
        "augmented_view(images, shared.augmentation, shared.normalisation, generator)",
        'augmented_view(images, shared.augmentation, shared.normalisation, self._device_step._generators["method"])',
    ),
    Mutant(
        "the other network is reported",
        "ssl_core/training/loop.py",
        "        evaluated = self.config.evaluate\n",
        '        evaluated = "student"\n',
    ),
    Mutant(
        "the other network is exported",
        "ssl_core/training/step.py",
        'self.evaluated = self.ema.network if config.evaluate == "ema" else self.student',
        'self.evaluated = self.student if config.evaluate == "ema" else self.ema.network',
    ),
    Mutant(
        "weight decay on batch norm and biases",
        "ssl_core/training/step.py",
        '{"params": others, "weight_decay": 0.0}',
        '{"params": others, "weight_decay": config.weight_decay}',
    ),
    Mutant(
        "no weight decay",
        "ssl_core/training/step.py",
        '{"params": kernels, "weight_decay": 0.0 if numbers_on_device else config.weight_decay}',
        '{"params": kernels, "weight_decay": 0.0}',
    ),
    Mutant(
        "learning rate never scheduled",
        "ssl_core/training/loop.py",
        "rate=self.config.learning_rate * float(self._schedule(torch.tensor(progress)))",
        "rate=self.config.learning_rate",
    ),
    Mutant(
        "labels of other images",
        "ssl_core/training/loop.py",
        "self._labels[positions],",
        "self._labels[positions.flip(0)],",
    ),
    Mutant(
        "validation images in the unlabeled batch",
        "ssl_core/training/loop.py",
        "unlabeled = torch.from_numpy(shared.unlabeled[self._unlabeled_order.next().numpy()])",
        "unlabeled = self._unlabeled_order.next() + len(shared.images) - len(shared.unlabeled)",
    ),
    Mutant(
        "gradients accumulate",
        "ssl_core/training/step.py",
        "self._optimizer.zero_grad(set_to_none=True)",
        "pass",
    ),
    Mutant(
        "checkpoint without the average's age",
        "ssl_core/training/step.py",
        'self.ema.updates = state["ema_updates"]',
        "pass",
    ),
    Mutant(
        "checkpoint without the random state",
        "ssl_core/training/step.py",
        'generator.set_state(state["generators"][stream])',
        "pass",
    ),
    Mutant(
        "checkpoint without the optimiser",
        "ssl_core/training/step.py",
        'self._load_optimizer(state["optimizer"])',
        "pass",
    ),
    Mutant(
        "checkpoint without the order of unlabeled images",
        "ssl_core/training/loop.py",
        'self._unlabeled_order.load_state_dict(state["unlabeled_order"])',
        "pass",
    ),
    # Published values, names and spaces.
    Mutant(
        "a published weight changed",
        "ssl_core/published.py",
        '"unlabeled_weight": 20.0',
        '"unlabeled_weight": 10.0',
    ),
    Mutant(
        "Miyato's direction with Oliver's weight",
        "ssl_core/published.py",
        '"eps_relative": 0.144,\n            "ramp_fraction": 0.0,',
        '"eps_relative": 0.144,\n            "ramp_fraction": 0.4,',
    ),
    Mutant(
        "js converted like kl",
        "ssl_core/published.py",
        '"js": 2.5 / num_classes',
        '"js": 0.5 / num_classes',
    ),
    Mutant(
        "a name without an implementation",
        "ssl_core/names.py",
        '"mixmatch",\n)',
        '"mixmatch",\n    "fixmatch",\n)',
    ),
    Mutant(
        "ramp longer than the first rung",
        "search_spaces/common.py",
        "return min(LARGEST_RAMP, context.first_rung)",
        "return LARGEST_RAMP",
    ),
    Mutant(
        "weight range without the number of classes",
        "search_spaces/common.py",
        "of_mse = (0.05 * classes, LARGEST_MSE_WEIGHT.get(context.algorithm, 30.0) * classes)",
        "of_mse = (0.5, 10 * LARGEST_MSE_WEIGHT.get(context.algorithm, 30.0))",
    ),
    Mutant(
        "the notebook's sum over classes left out",
        "ssl_core/published.py",
        "ours *= num_classes",
        "ours *= 1",
    ),
    Mutant(
        "weight searched linearly",
        "search_spaces/common.py",
        "return _six_digits(low * (high / low) ** position)",
        "return _six_digits(low + (high - low) * position)",
    ),
    Mutant(
        "bounds that vary with the divergence",
        "search_spaces/common.py",
        'position = trial.suggest_float("unlabeled_weight_u", 0.0, 1.0)',
        'position = trial.suggest_float("unlabeled_weight_u", 0.1 * (context.divergence == "js"), 1.0)',
    ),
    Mutant(
        "threshold searched as its gap",
        "search_spaces/common.py",
        "return _six_digits(1.0 - gap)",
        "return _six_digits(gap)",
    ),
    Mutant(
        "a default that forgets its divergence",
        "search_spaces/joint.py",
        'params["divergence"] = divergence',
        'params["divergence"] = self._divergences_of(algorithm)[0]',
    ),
    # The search: what Ray Tune, its OptunaSearch and its ASHA do wrong (tests/upstream), and more.
    Mutant(
        "asha: the worst are kept",
        "tune_ssl/asha.py",
        "1.0 - 1.0 / reduction_factor))",
        "1.0 / reduction_factor))",
    ),
    Mutant(
        "asha: equal to the cutoff is cut",
        "tune_ssl/asha.py",
        "math.isfinite(value) and value >= cutoff",
        "math.isfinite(value) and value > cutoff",
    ),
    Mutant(
        "asha: what is not a number goes on",
        "tune_ssl/asha.py",
        "kept = math.isfinite(value) and value >= cutoff",
        "kept = not value < cutoff",
    ),
    Mutant(
        "asha: rungs rounded down, the last grace lost",
        "tune_ssl/asha.py",
        "while step < max_steps:",
        "while step * reduction_factor < max_steps:",
    ),
    Mutant(
        "study: a trial is its own competitor at a rung",
        "tune_ssl/study.py",
        "for number, other in recorded.items() if number != trial.number]",
        "for number, other in recorded.items()] + [value]",
    ),
    Mutant(
        "simulator: the driver hears several trials at once",
        "tune_ssl/simulator.py",
        "self._now = max(self._now, trial.at) + self._driver.result",
        "self._now = trial.at + self._driver.result",
    ),
    Mutant(
        "simulator: the time of a verdict is forgotten",
        "tune_ssl/simulator.py",
        "        self._now += self._driver.stopwatch() - began\n",
        "        self._driver.stopwatch()\n",
    ),
    Mutant(
        "simulator: all free slots are filled before anybody is heard",
        "tune_ssl/simulator.py",
        "and (heard or quiet):",
        "and True:",
    ),
    Mutant(
        "simulator: a replay takes what it should compare",
        "tune_ssl/simulator.py",
        "if _without_stamps(log) != _without_stamps(recorded):",
        "if not recorded:",
    ),
    Mutant(
        "study: published defaults are cut like others",
        "tune_ssl/study.py",
        "exempt = DEFAULT in trial.user_attrs",
        "exempt = False",
    ),
    Mutant(
        "study: a cut trial is told as complete",
        "tune_ssl/study.py",
        'number, TrialState.PRUNED, value, reason=f"below the cutoff',
        'number, TrialState.COMPLETE, value, reason=f"below the cutoff',
    ),
    Mutant(
        "study: a loss that is not finite is told as FAIL",
        "tune_ssl/study.py",
        "self._finish(number, TrialState.PRUNED, None, reason=reason)",
        "self._finish(number, TrialState.FAIL, None, reason=reason)",
    ),
    Mutant(
        "study: reports of an attempt that is over count",
        "tune_ssl/study.py",
        "trial.state == TrialState.RUNNING and self._attempt(trial) == attempt",
        "trial.state == TrialState.RUNNING",
    ),
    Mutant(
        "study: rungs are forgotten by a restart",
        "tune_ssl/study.py",
        "self._rung_values = self._recorded_rung_values()",
        "self._rung_values: dict[int, dict[int, float]] = {}",
    ),
    Mutant(
        "study: a rung decided before an interruption is decided again",
        "tune_ssl/study.py",
        "if key in trial.user_attrs:",
        "if key in trial.system_attrs:",
    ),
    Mutant(
        "study: waiting trials count as begun, and the last are never run",
        "tune_ssl/study.py",
        "if running + self._storage.finished(self._id).total() >= self.trials:",
        "if len(self._storage.get_all_trials(self._id)) >= self.trials:",
    ),
    Mutant(
        "study: retries without end",
        "tune_ssl/study.py",
        "if without >= ATTEMPTS_WITHOUT_PROGRESS:",
        "if without > 10**6:",
    ),
    Mutant(
        "study: an attempt that never trained counts as one without progress",
        "tune_ssl/study.py",
        "if (counts or progressed) and trial.user_attrs.get(STARTED) == attempt:",
        "if counts or progressed:",
    ),
    Mutant(
        "sampler: the same randomness for every trial",
        "tune_ssl/sampler.py",
        "spawn_key=key)",
        "spawn_key=key[1:])",
    ),
    Mutant(
        "sampler: one stream for all parameters of a trial",
        "tune_ssl/sampler.py",
        "zlib.crc32(param_name.encode())",
        "0",
    ),
    Mutant(
        "best: cut trials can win",
        "tune_ssl/best.py",
        "complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]",
        "complete = [trial for trial in trials if trial.value is not None]",
    ),
    Mutant(
        "best: ties where the test separates",
        "tune_ssl/best.py",
        "_p_value(complete[0], trial) >= SIGNIFICANCE",
        "_p_value(complete[0], trial) < SIGNIFICANCE",
    ),
    Mutant(
        "best: a one-sided test",
        "tune_ssl/best.py",
        "count / (differing - count + 1)\n    return min(1.0, 2 * tail)",
        "count / (differing - count + 1)\n    return min(1.0, tail)",
    ),
    Mutant(
        "best: a published default is not preferred among ties",
        "tune_ssl/best.py",
        "is_default = DEFAULT in trial.user_attrs",
        "is_default = False",
    ),
    Mutant(
        "statistics: images are no sample",
        "tune_ssl/statistics/crossed.py",
        "beyond = np.maximum(squares.images - squares.residual, 0.0)",
        "beyond = np.zeros_like(squares.images)",
    ),
    Mutant(
        "statistics: what is left over counts twice",
        "tune_ssl/statistics/crossed.py",
        "beyond = np.maximum(squares.images - squares.residual, 0.0)",
        "beyond = squares.images",
    ),
    Mutant(
        "statistics: the draws' freedom for all",
        "tune_ssl/statistics/crossed.py",
        "return variance, np.where(nothing, draws - 1.0, freedom)",
        "return variance, np.full_like(freedom, draws - 1.0)",
    ),
    Mutant(
        "statistics: the freedom of the residual for all",
        "tune_ssl/statistics/crossed.py",
        "return variance, np.where(nothing, draws - 1.0, freedom)",
        "return variance, np.full_like(freedom, (draws - 1.0) * (images - 1.0))",
    ),
    Mutant(
        "statistics: a one-sided quantile",
        "tune_ssl/statistics/crossed.py",
        "tail = (1.0 - np.asarray(level)) / 2",
        "tail = 1.0 - np.asarray(level)",
    ),
    Mutant(
        "statistics: accuracy for balanced accuracy",
        "tune_ssl/statistics/crossed.py",
        "weights = len(given) / (len(sizes) * sizes)",
        "weights = np.ones(len(sizes))",
    ),
    Mutant(
        "cells: unpaired differences",
        "tune_ssl/statistics/cells.py",
        "return np.maximum(own[:, None] + own - 2 * matrix, 0.0)",
        "return np.maximum(own[:, None] + own, 0.0)",
    ),
    Mutant(
        "cells: a pair's luck gives it freedom",
        "tune_ssl/statistics/cells.py",
        "squares, shape, least_draws=float(squares.draws[pairs].mean())",
        "squares, shape, least_draws=0.0",
    ),
    Mutant(
        "cells: one residual for all",
        "tune_ssl/statistics/cells.py",
        "squares = pair_squares(mean_products(tables))",
        "squares = MeanSquares(*(np.full_like(x, x.sum() / (len(x) * (len(x) - 1))) for x in pair_squares(mean_products(tables))))",
    ),
    Mutant(
        "cells: each pair as if it were alone",
        "tune_ssl/statistics/cells.py",
        "return np.full((cells, cells), 1.0 - error / (cells * (cells - 1) / 2))",
        "return np.full((cells, cells), level)",
    ),
    Mutant(
        "cells: the error is spent twice",
        "tune_ssl/statistics/cells.py",
        "levels[control, :] = levels[:, control] = 1.0 - error / 2 / others",
        "levels[control, :] = levels[:, control] = 1.0 - error / others",
    ),
    Mutant(
        "letters: every other group is lost",
        "tune_ssl/statistics/letters.py",
        "parts = {group - {cell} for group in holding for cell in pair}",
        "parts = {group - {min(pair)} for group in holding}",
    ),
    Mutant(
        "letters: nothing is swept away",
        "tune_ssl/statistics/letters.py",
        "kept = _swept(sorted(groups, key=sorted))",
        "kept = sorted(groups, key=sorted)",
    ),
    Mutant(
        "selection: the search's own draw counts",
        "tune_ssl/statistics/selection.py",
        "fresh = np.asarray(draws) != search_draw",
        "fresh = np.asarray(draws) == np.asarray(draws)",
    ),
    Mutant(
        "selection: rounding breaks ties",
        "tune_ssl/statistics/selection.py",
        "means = given[:, fresh].mean(axis=1).round(12)",
        "means = given[:, fresh].mean(axis=1)",
    ),
    Mutant(
        "selection: unpaired gains",
        "tune_ssl/statistics/selection.py",
        "gains.std(ddof=1)",
        "(best.var(ddof=1) + default.var(ddof=1)) ** 0.5",
    ),
    Mutant(
        "selection: chance as narrow as the interval",
        "tune_ssl/statistics/selection.py",
        "by_chance=(once**2 + spread**2 / count) ** 0.5",
        "by_chance=spread / count**0.5",
    ),
    Mutant(
        "selection: chosen and judged on the same images",
        "tune_ssl/statistics/selection.py",
        "out = (times == 0).astype(np.float64)",
        "out = (times >= 0).astype(np.float64)",
    ),
    Mutant(
        "repeats: retrainings pass for searches",
        "tune_ssl/statistics/repeats.py",
        "return np.stack([table.mean(axis=0) for table in tables])",
        "return np.concatenate(tables)",
    ),
    Mutant(
        "repeats: two retrainings are enough",
        "tune_ssl/statistics/repeats.py",
        "if count < FEWEST_RETRAININGS:",
        "if count < FEWEST_RETRAININGS - 1:",
    ),
    Mutant(
        "journal: a write that failed leaves half a record",
        "tune_ssl/journal.py",
        "            os.truncate(self._path, size)\n",
        "",
    ),
    Mutant(
        "journal: a torn tail is left in place",
        "tune_ssl/journal.py",
        "    os.truncate(path, good)\n",
        "",
    ),
    Mutant(
        "journal: writes go on after those of an event failed",
        "tune_ssl/journal.py",
        "                    self._lost = error\n",
        "",
    ),
    Mutant(
        "driver: files go before the journal says that their trial has ended",
        "tune_ssl/driver.py",
        "            verdict = self._verdict(report)\n        if report.value",
        "            verdict = self._verdict(report)\n            self._retire(report.number)\n"
        "        if report.value",
    ),
    Mutant(
        "worker: a rung measured in part is taken for measured",
        "tune_ssl/worker.py",
        "        if measured is None:\n"
        "            return self._report(SLICE, began, checkpoint=checkpoint)\n"
        "        self._reported_step = work.step\n",
        "        self._reported_step = work.step\n"
        "        if measured is None:\n"
        "            return self._report(SLICE, began, checkpoint=checkpoint)\n",
    ),
    Mutant(
        "trial: training on continues a measuring that was begun before",
        "tune_ssl/trial.py",
        "        self._measuring = None\n        self._training.run(",
        "        self._training.run(",
    ),
    Mutant(
        "worker: no checkpoint at a rung",
        "tune_ssl/worker.py",
        "checkpoint = self.store_checkpoint()\n        measured",
        "checkpoint = None\n        measured",
    ),
    Mutant(
        "worker: images changed in memory go unnoticed",
        "tune_ssl/worker.py",
        "        work.verify()\n",
        "",
    ),
    Mutant(
        "driver: a drain leaves trials running",
        "tune_ssl/driver.py",
        "        self.study.recover(reason)\n",
        "",
    ),
    Mutant(
        "driver: a full storage is counted against its trials",
        "tune_ssl/driver.py",
        "counts=len(failures) > UNCOUNTED_FAILURES)",
        "counts=True)",
    ),
    Mutant(
        "driver: a storage that is lost does not stop the search",
        "tune_ssl/driver.py",
        "if len(trials) < LOST_AFTER or (alone and not whoever):",
        "if True:",
    ),
    Mutant(
        "driver: failures of a storage are counted over successes",
        "tune_ssl/driver.py",
        "self._failed_in_a_row.pop((report.node, STORAGE), None)",
        "pass",
    ),
    Mutant(
        "worker: a process whose GPU failed is given the next trial",
        "tune_ssl/worker.py",
        "OF_THE_PLACE = (UNREADABLE, UNWRITABLE, DEVICE_FAILED)",
        "OF_THE_PLACE = (UNREADABLE, UNWRITABLE)",
    ),
    Mutant(
        "driver: the failures of a node's GPUs are counted together",
        "tune_ssl/driver.py",
        'return f"GPU {report.gpus}" if report.gpus else "the GPU"',
        'return "the GPU"',
    ),
    Mutant(
        "driver: a file stored at the step an attempt began at speaks for a GPU",
        "tune_ssl/driver.py",
        "if report.step > trial.began_at:",
        "if True:",
    ),
    Mutant(
        "driver: a trial that breaks GPUs is tried for ever",
        "tune_ssl/driver.py",
        "self._interrupt(report.number, report.attempt, reason, counts=alone)",
        "self._interrupt(report.number, report.attempt, reason, counts=False)",
    ),
    Mutant(
        "driver: a damaged checkpoint is read again and again",
        "tune_ssl/driver.py",
        "        except DamagedFileError:\n            return False\n",
        "",
    ),
    Mutant(
        "driver: damaged checkpoints are taken for a lost storage",
        "tune_ssl/driver.py",
        "        if found is not False:\n",
        "        if True:\n",
    ),
    Mutant(
        "nodes: one that lost the storage is never asked again",
        "tune_ssl/on_ray/nodes.py",
        "                self._seen.discard(node_id)\n",
        "                pass\n",
    ),
    Mutant(
        "driver: a single trial takes a GPU from all",
        "tune_ssl/driver.py",
        "(alone and not whoever)",
        "False",
    ),
    Mutant(
        "study: a drain with a new checkpoint forgives nothing",
        "tune_ssl/study.py",
        "if (counts or progressed) and",
        "if counts and",
    ),
    Mutant(
        "driver: draining counts against trials",
        "tune_ssl/driver.py",
        'self.draining or "drained", counts=False)',
        'self.draining or "drained")',
    ),
    Mutant(
        "storage: a damaged file is given as it is",
        "tune_ssl/storage.py",
        "if hashlib.sha256(data).hexdigest() != sha256:",
        "if False:",
    ),
    Mutant(
        "nodes: the worker of an excluded node is given the next trial",
        "tune_ssl/on_ray/scheduler.py",
        "if self._guard is None or report.node in self._guard.allowed:",
        "if True:",
    ),
    Mutant(
        "journal: one that cannot be cut again is written on",
        "tune_ssl/journal.py",
        '                self._lost = JournalWriteError(f"{self._path}: {error}")\n            raise',
        "                pass\n            raise",
    ),
    Mutant(
        "storage: keys of an address in messages",
        "tune_ssl/storage.py",
        "    if not mark or not at or (",
        "    if True or (",
    ),
    Mutant(
        "resume: a checkpoint that cannot be read now is given up",
        "tune_ssl/workflows/opening.py",
        "except FileNotFoundError as error:",
        "except OSError as error:",
    ),
    Mutant(
        "resume: a trial that begins anew is measured by the step it had reached",
        "tune_ssl/study.py",
        "self._set_system_attribute(number, BEGAN_AT, 0)",
        "pass",
    ),
    Mutant(
        "worker: measuring is given a slice of its own",
        "tune_ssl/worker.py",
        "left = length - (self._clock() - began)",
        "left = length",
    ),
    Mutant(
        "nodes: a worker whose storage failed is given the next trial",
        "tune_ssl/on_ray/scheduler.py",
        "if ends_the_worker(report):",
        "if False:",
    ),
    Mutant(
        "nodes: one that answers late is never taken",
        "tune_ssl/on_ray/nodes.py",
        "        if not self.allowed:\n            needed",
        "        self._pending.clear()\n        if not self.allowed:\n            needed",
    ),
    Mutant(
        "splits: validation images are trained on without their labels",
        "ssl_core/data/splits.py",
        "np.setdiff1d(np.arange(len(labels), dtype=np.int64), chosen)",
        "np.arange(len(labels), dtype=np.int64)",
    ),
    Mutant(
        "splits: validation images are trained on with their labels",
        "ssl_core/data/splits.py",
        "own_left = [own[n:] for",
        "own_left = [own for",
    ),
    Mutant(
        "splits: labels not spread over the classes",
        "ssl_core/data/splits.py",
        "for_labels = _counts_in_turn(sizes, total, turn)",
        "for_labels = _proportional_counts(sizes, total)",
    ),
    Mutant(
        "splits: a rare class has no validation image",
        "ssl_core/data/splits.py",
        "for_validation = _validation_counts(",
        "for_validation = _proportional_counts(",
    ),
    Mutant(
        "splits: with a condition the labeled images are drawn into the pool twice",
        "ssl_core/data/splits.py",
        "extras = order[~np.isin(order, labeled)]",
        "extras = order",
    ),
    Mutant(
        "splits: images of other classes pass for those of the labeled ones",
        "ssl_core/data/splits.py",
        "inside = extras if class_mismatch is None else extras[known]",
        "inside = extras",
    ),
    Mutant(
        "splits: the pool's long tail begins again beside the labels",
        "ssl_core/data/splits.py",
        "tail[len(labeled) :]",
        "tail",
    ),
    Mutant(
        "pools: a mismatch changes the size of the pool",
        "ssl_core/data/pools.py",
        "inside[: extras - from_outside]",
        "inside[:extras]",
    ),
    Mutant(
        "pools: without a size, each mismatch has its own",
        "ssl_core/data/pools.py",
        "min(len(inside), len(outside))",
        "len(inside)",
    ),
    Mutant(
        "pools: a long tail that takes back what it gave",
        "ssl_core/data/pools.py",
        "/ (2 * given + 1)",
        "/ (2 * given[::-1] + 1)",
    ),
    Mutant(
        "pools: a rare class gets no label",
        "ssl_core/data/pools.py",
        "        quotient[0] += 1.0  # before any second image\n",
        "",
    ),
    Mutant(
        "classes: labels keep the numbers of all classes",
        "ssl_core/data/classes.py",
        "= np.arange(len(chosen))",
        "= np.array(chosen)",
    ),
    Mutant(
        "prepare: classes that nobody knows are drawn by",
        "ssl_core/data/prepare.py",
        "if unknown and (",
        "if False and (",
    ),
    Mutant(
        "sealed: a network of some classes is judged on the images of all",
        "tune_ssl/sealed.py",
        "return of_classes(without_seen(_images()), _place.labeled_classes)",
        "return of_classes(without_seen(_images()), None)",
    ),
    Mutant(
        "sealed: test images of some classes are counted as another test set",
        "tune_ssl/sealed.py",
        "whole, test = _images(), _judging()",
        "whole, test = _judging(), _judging()",
    ),
    Mutant(
        "confirm: the accuracy beside balanced accuracy is that one again",
        "tune_ssl/confirmation.py",
        "outcomes(retrainings, named.name, test, balanced=False)",
        "outcomes(retrainings, named.name, test, balanced=True)",
    ),
    Mutant(
        "plan: a long tail is judged by accuracy",
        "tune_ssl/workflows/plan.py",
        "by_class = config.data().is_imbalanced or (",
        "by_class = False or (",
    ),
    Mutant(
        "power: one side of the test only",
        "tune_ssl/statistics/power.py",
        "fits = (near >= 0) & (2 * _at_most(",
        "fits = (near >= 0) & (1 * _at_most(",
    ),
    Mutant(
        "power: the better one wins as often as it loses",
        "tune_ssl/statistics/power.py",
        "(disagreement + difference) / (2 * disagreement)",
        "disagreement / (2 * disagreement)",
    ),
    Mutant(
        "power: two configurations differ by more than they disagree on",
        "tune_ssl/statistics/power.py",
        "share = max(disagreement, middle)",
        "share = disagreement",
    ),
    Mutant(
        "parameters: an option a search cannot carry is let through",
        "ssl_core/parameters.py",
        "if given != fixed:",
        "if False:",
    ),
    Mutant(
        "joint: a moved value is not told",
        "search_spaces/joint.py",
        "        moved.append(Moved(",
        "        (Moved(",
    ),
    Mutant(
        "study: what was given is tried before the published defaults",
        "tune_ssl/study.py",
        "return [*published, *(start for start in started_from if start.params not in known)]",
        "return [*(start for start in started_from if start.params not in known), *published]",
    ),
    Mutant(
        "sampler: what diverged after a rung looks good",
        "tune_ssl/sampler.py",
        "{} if lost else trial.intermediate_values",
        "trial.intermediate_values",
    ),
    Mutant(
        "sampler: nothing but the best trials are shown",
        "tune_ssl/sampler.py",
        "        shown.update(number for _, number in self._lots[: self._others])\n",
        "",
    ),
    Mutant(
        "sampler: the oldest trials are shown instead of a sample",
        "tune_ssl/sampler.py",
        "(_lot(trial.number), trial.number)",
        "(trial.number.to_bytes(8), trial.number)",
    ),
    Mutant(
        "sampler: as many count as good as are shown of the best",
        "tune_ssl/sampler.py",
        "self._history.best(default_gamma(len(numbers)))",
        "self._history.best(BEST_SHOWN)",
    ),
    Mutant(
        "parzen: a kernel is as wide as the smaller gap",
        "tune_ssl/parzen.py",
        "np.maximum(gaps[:-1], gaps[1:])",
        "np.minimum(gaps[:-1], gaps[1:])",
    ),
    Mutant(
        "parzen: the outermost kernels reach to the bounds",
        "tune_ssl/parzen.py",
        "    if len(seen) > 1:\n",
        "    if False:\n",
    ),
    Mutant(
        "parzen: the mass outside the bounds is kept",
        "tune_ssl/parzen.py",
        "np.log(self.width * mass)",
        "np.log(self.width)",
    ),
    Mutant(
        "parzen: every trial weighs the same, however old",
        "tune_ssl/parzen.py",
        "np.append(default_weights(count), PRIOR_WEIGHT)",
        "np.append(np.ones(count), PRIOR_WEIGHT)",
    ),
    Mutant(
        "parzen: choices never seen have no probability",
        "tune_ssl/parzen.py",
        "np.full((kernels, choices), PRIOR_WEIGHT / kernels)",
        "np.full((kernels, choices), 1e-9)",
    ),
    Mutant(
        "warm start: values that do not compare are taken",
        "tune_ssl/warm_start.py",
        "    if differing:\n",
        "    if False:\n",
    ),
    Mutant(
        "warm start: what lies outside is moved inside and taken",
        "tune_ssl/warm_start.py",
        "return None if moved else params",
        "return params",
    ),
    Mutant(
        "folder: an image in two places is used twice",
        "ssl_core/data/folder.py",
        "if len(classes) > 1 else group[1:]:",
        "if len(classes) > 1 else ():",
    ),
    Mutant(
        "folder: the first of two classes is believed",
        "ssl_core/data/folder.py",
        "for index in group if len(classes) > 1 else group[1:]:",
        "for index in group[1:]:",
    ),
    Mutant(
        "folder: a test image that was trained on judges",
        "ssl_core/data/folder.py",
        "if training is not None:",
        "if False:",
    ),
    Mutant(
        "sealed: what was trained on judges",
        "tune_ssl/sealed.py",
        "of_classes(without_seen(_images()), _place.labeled_classes)",
        "of_classes(_images(), _place.labeled_classes)",
    ),
    Mutant(
        "compare: searches of other images are gone on with",
        "tune_ssl/workflows/compare.py",
        "        _check_same_data(comparison, directory, draws)\n",
        "",
    ),
    Mutant(
        "compare: labels that were changed are not seen",
        "tune_ssl/workflows/opening.py",
        "if known.get(key, now[key]) != now[key]",
        'if key == "images_crc32" and known.get(key, now[key]) != now[key]',
    ),
    Mutant(
        "retrain: other images than it was trained on are tested",
        "tune_ssl/workflows/retrain.py",
        "        check_job_data(job, directory)\n    if fresh or",
        "        pass\n    if fresh or",
    ),
    Mutant(
        "compare: a control that found nothing is not seen at its end",
        "tune_ssl/workflows/compare.py",
        "if cell.algorithm == CONTROL and not outcome.records:",
        "if False:",
    ),
    Mutant(
        "compare: a control that found nothing is not seen when it is gone on with",
        "tune_ssl/workflows/compare.py",
        "        self._check_control()\n",
        "",
    ),
    Mutant(
        "compare: a larger budget goes on after the retrainings",
        "tune_ssl/workflows/compare.py",
        "and now > before and not retrained",
        "and now > before",
    ),
    Mutant(
        "compare: a smaller budget goes on",
        "tune_ssl/workflows/compare.py",
        "and now > before and not retrained",
        "and not retrained",
    ),
    Mutant(
        "compare: a larger budget is not written down",
        "tune_ssl/workflows/compare.py",
        "if path.exists() and read_comparison(directory).budget_per_cell == comparison.budget_per_cell:",
        "if path.exists():",
    ),
    Mutant(
        "compare: two folders of images have one name",
        "tune_ssl/workflows/compare.py",
        'kept["data_dir"] = comparison.settings.data_dir',
        "pass",
    ),
    Mutant(
        "compare: the control minimises entropy",
        "tune_ssl/comparison.py",
        "entropy_min=0.0 if cell.algorithm == CONTROL else self.settings.entropy_min,",
        "entropy_min=self.settings.entropy_min,",
    ),
    Mutant(
        "status: device time that is used up is not done",
        "tune_ssl/workflows/results.py",
        "return counts.finished >= counts.asked if cell is None else cell.used_up(trials)",
        "return counts.finished >= counts.asked",
    ),
    Mutant(
        "sealed: test files of another size are another test set",
        "tune_ssl/sealed.py",
        "whole.files_sha256 or digest.hexdigest()",
        "digest.hexdigest()",
    ),
    Mutant(
        "folder: test files have no classes",
        "ssl_core/data/folder.py",
        'f"{class_names[label]} {hashlib.sha256(path.read_bytes()).hexdigest()}"',
        'f"{hashlib.sha256(path.read_bytes()).hexdigest()}"',
    ),
    Mutant(
        "statistics: a retraining far above the others has collapsed",
        "tune_ssl/statistics/repeats.py",
        "values < np.median(values) - COLLAPSE",
        "np.abs(values - np.median(values)) > COLLAPSE",
    ),
    Mutant(
        "statistics: nothing collapses",
        "tune_ssl/views/judged.py",
        '        if count:\n            told.append(f"{name} {count} of {of}',
        '        if False:\n            told.append(f"{name} {count} of {of}',
    ),
    Mutant(
        "device: freed memory goes back to the system",
        "ssl_core/training/device.py",
        "        libc.mallopt(MMAP_MAX, 0)\n",
        "",
    ),
    Mutant(
        "device: a training counts the memory of the one before",
        "ssl_core/training/device.py",
        "        libc.malloc_trim(0)\n",
        "",
    ),
    Mutant(
        "device: the heap grows by small pages",
        "ssl_core/training/device.py",
        "        _grow_by_huge_pages(libc)\n",
        "",
    ),
    Mutant(
        "device: a share is asked for without the GPU's number",
        "ssl_core/training/device.py",
        "share - reserved / total), index)",
        "share - reserved / total), device)",
    ),
    Mutant(
        "vat: directions of ten bits on a GPU",
        "ssl_core/algorithms/vat.py",
        "allow_tf32=False",
        "allow_tf32=True",
    ),
    Mutant(
        "batch norm: the last batch of statistics counts most",
        "ssl_core/models/batch_norm.py",
        "1.0 / (number + 1)",
        "1.0 / (number + 1) ** 0.5",
    ),
    Mutant(
        "cluster: a token is shown to whoever is named",
        "tune_ssl/on_ray/cluster.py",
        "if _asks_for_token(found):",
        "if True:",
    ),
    Mutant(
        "cluster: one that is listed and gone is waited for",
        "tune_ssl/on_ray/cluster.py",
        "    _check_answers(found)\n",
        "",
    ),
    Mutant(
        "export: whatever is there is replaced",
        "tune_ssl/views/export.py",
        ", text) is not None",
        ", text) is not False",
    ),
    Mutant(
        "settings: a file's images are those of another data set",
        "tune_ssl/workflows/settings.py",
        "given.pop(key, None) is not None and key not in flags",
        "key in given and key not in flags",
    ),
    Mutant(
        "plan: runs of one name share a storage",
        "tune_ssl/workflows/plan.py",
        "{name}-{uuid.uuid4().hex[:8]}",
        "{name}",
    ),
    Mutant(
        "confirm: the search's own draw is retrained on",
        "tune_ssl/retraining.py",
        "for number in candidates if number not in seen][:count]",
        "for number in candidates][:count]",
    ),
    Mutant(
        "confirm: one seed for all draws",
        "tune_ssl/retraining.py",
        "Draw(split_seed=number, seed=number)",
        "Draw(split_seed=number, seed=0)",
    ),
    Mutant(
        "confirm: retrainings on the search's draw",
        "tune_ssl/retraining.py",
        "dataclasses.replace(self.settings, split_seed=draw.split_seed)",
        "dataclasses.replace(self.settings)",
    ),
    Mutant(
        "confirm: retrainings are cut",
        "tune_ssl/retraining.py",
        '        scheduler="none",\n        sampler="random",',
        '        sampler="random",',
    ),
    Mutant(
        "confirm: an opening is counted each time it is asked for",
        "tune_ssl/ledger.py",
        "if opening in known:",
        "if False:",
    ),
    Mutant(
        "confirm: openings in other folders are not counted",
        "tune_ssl/ledger.py",
        "{*known, *elsewhere}",
        "{*known}",
    ),
    Mutant(
        "confirm: openings of others in the folder are not counted",
        "tune_ssl/ledger.py",
        "{*known, *elsewhere}",
        "{*elsewhere}",
    ),
    Mutant(
        "compare: a part goes on for itself",
        "tune_ssl/run.py",
        "return RunDirectory(folder) if is_part and",
        "return RunDirectory(folder) if False and",
    ),
    Mutant(
        "compare: the retrainings have the share of one cell",
        "tune_ssl/comparison.py",
        "gpus_per_trial=first.gpus_per_trial,",
        "gpus_per_trial=settings.gpus_per_trial,",
    ),
    Mutant(
        "confirm: all test sets are counted as one",
        "tune_ssl/ledger.py",
        '        if entry.get("test_set") == test_set:\n            found.set',
        "        if True:\n            found.set",
    ),
    Mutant(
        "confirm: a torn line swallows the next opening",
        "tune_ssl/ledger.py",
        'torn = b"\\n" if data and not data.endswith(b"\\n") else b""',
        'torn = b""',
    ),
    Mutant(
        "confirm: two processes share an opening",
        "tune_ssl/ledger.py",
        "fcntl.LOCK_EX",
        "fcntl.LOCK_SH",
    ),
    Mutant(
        "confirm: a retraining that diverged is left out",
        "tune_ssl/confirmation.py",
        "] = trial.value or 0.0",
        "] = trial.value or 0.9",
    ),
    Mutant(
        "confirm: a failed retraining is all wrong",
        "tune_ssl/confirmation.py",
        "if trial.state == TrialState.FAIL\n",
        "if False\n",
    ),
    Mutant(
        "confirm: too little memory is all wrong",
        "tune_ssl/confirmation.py",
        "return trial.state == TrialState.PRUNED and not lacked_memory",
        "return trial.state == TrialState.PRUNED",
    ),
    Mutant(
        "confirm: balanced accuracy is judged by accuracy",
        "tune_ssl/confirmation.py",
        "return balanced_outcomes(table, test.labels) if balanced else table",
        "return table",
    ),
    Mutant(
        "confirm: draws are not paired",
        "tune_ssl/confirmation.py",
        "table[column] = unpack_correct(packed)",
        "table[-1 - column * (name == 'rank 1')] = unpack_correct(packed)",
    ),
    Mutant(
        "confirm: optimism of what was retrained first",
        "tune_ssl/confirmation.py",
        "retrained_best=values[best],",
        "retrained_best=values[default],",
    ),
    Mutant(
        "confirm: weights are not those that were stored",
        "tune_ssl/sealed.py",
        "storage.read_stored(weights.path, weights.sha256)",
        "storage.read(weights.path)",
    ),
    Mutant(
        "confirm: a fingerprint without labels",
        "tune_ssl/sealed.py",
        '    digest.update(np.ascontiguousarray(whole.labels, dtype="<i8").tobytes())\n',
        "",
    ),
    Mutant(
        "confirm: the default is counted among the top",
        "tune_ssl/workflows/confirm.py",
        "others = [one for one in ranked if one is not default][:top]",
        "others = [one for one in ranked[:top] if one is not default]",
    ),
    Mutant(
        "confirm: the default of any method",
        "tune_ssl/workflows/confirm.py",
        "default = next(iter(own or defaults), None)",
        "default = next(iter(defaults[::-1]), None)",
    ),
    Mutant(
        "confirm: images that changed are confirmed on",
        "tune_ssl/workflows/confirm.py",
        'if found != attributes["images_crc32"]:',
        "if False:",
    ),
    Mutant(
        "confirm: another table is continued",
        "tune_ssl/workflows/confirm.py",
        "if kept.table() != asked.table():",
        "if False:",
    ),
    Mutant(
        "confirm: the best ten keep their weights for the test",
        "tune_ssl/workflows/retrain.py",
        "return None if self.retrainings.folds is None else 0",
        "return 10",
    ),
    Mutant(
        "confirm: the test set is opened again to print",
        "tune_ssl/workflows/retrain.py",
        "    if path.exists():\n        kept = OpenedTest",
        "    if False:\n        kept = OpenedTest",
    ),
    Mutant(
        "confirm: another winner than was written down",
        "tune_ssl/workflows/retrain.py",
        "elif json.loads(path.read_text()) != winner:",
        "elif False:",
    ),
    Mutant(
        "confirm: a test figure without its opening",
        "tune_ssl/views/judged.py",
        ", opening {result['test']['opening']}\\n(95 %)",
        "\\n(95 %)",
    ),
    Mutant(
        "compare: a method with more divergences has more budget",
        "tune_ssl/comparison.py",
        "whole = len(self.settings.divergence) or 1",
        "whole = 1",
    ),
    Mutant(
        "compare: repeats on one draw",
        "tune_ssl/comparison.py",
        "split_seed=self.settings.split_seed + repeat,",
        "split_seed=self.settings.split_seed,",
    ),
    Mutant(
        "compare: repeats share the draws of their retrainings",
        "tune_ssl/retraining.py",
        "return self.configurations[configuration], self.draws[number // self.rows_of_a_group]",
        "return self.configurations[configuration], self.draws[number // self.rows_of_a_group % self.draws_of_a_group]",
    ),
    Mutant(
        "compare: retrainings on a search's draw",
        "tune_ssl/comparison.py",
        "draws=fresh_draws(draws, seen=seen),",
        "draws=tuple(one._replace(split_seed=one.split_seed - 1000) for one in fresh_draws(draws, seen=seen)),",
    ),
    Mutant(
        "compare: the winner is named by the test",
        "tune_ssl/comparison.py",
        '"winner": ordered[0].name,',
        '"winner": next(iter(cells)),',
    ),
    Mutant(
        "compare: reference lines claim for themselves",
        "tune_ssl/comparison.py",
        "compare_cells(tables, control=CONTROL)}",
        "compare_cells({k: v for k, v in tables.items() if k in rows or k == CONTROL}, control=CONTROL)} | {c.name: c for c in compare_cells(tables, control=CONTROL) if c.name not in rows}",
    ),
    Mutant(
        "compare: reference lines of repeats in another order",
        "tune_ssl/comparison.py",
        "else own for own in groups]",
        "else own for own in groups[::-1]]",
    ),
    Mutant(
        "compare: a cell's cost is its winner's",
        "tune_ssl/comparison.py",
        "device_seconds(searched.trials),",
        "device_seconds(searched.trials[:1]),",
    ),
    Mutant(
        "compare: a cell that found nothing holds all up",
        "tune_ssl/comparison.py",
        "if one.cell.name not in out]",
        "if True]",
    ),
    Mutant(
        "compare: labels are spread from validation images",
        "tune_ssl/references.py",
        "pool = drawn.unlabeled ",
        "pool = np.arange(len(drawn.images)) ",
    ),
    Mutant(
        "compare: the nearest neighbour sees the pool",
        "tune_ssl/references.py",
        "known = pixels(drawn.images[drawn.labeled])\n    return KNeighborsClassifier(1).fit(known, drawn.labels)",
        "known = pixels(drawn.images[drawn.validation])\n    return KNeighborsClassifier(1).fit(known, drawn.validation_labels)",
    ),
    Mutant(
        "compare: a finished cell is driven again",
        "tune_ssl/workflows/compare.py",
        "if not _is_done(self._folder(repeat, cell), cell):",
        "if True:",
    ),
    Mutant(
        "compare: twice the device time",
        "tune_ssl/workflows/compare.py",
        "device_seconds=cell.device_seconds\n",
        "device_seconds=cell.device_seconds and 2 * cell.device_seconds\n",
    ),
    Mutant(
        "compare: a cell that was given more is compared",
        "tune_ssl/workflows/compare.py",
        "if config.trials != cell.trials:",
        "if False:",
    ),
    Mutant(
        "compare: every cell starts a cluster",
        "tune_ssl/workflows/compare.py",
        "if self._connected is None:",
        "if True:",
    ),
    Mutant(
        "compare: cells are given what each machine decides",
        "tune_ssl/workflows/compare.py",
        "            if own.config_path.exists():\n                return",
        "            if False:\n                return",
    ),
    Mutant(
        "compare: an early end between cells goes on with the retrainings",
        "tune_ssl/workflows/compare.py",
        "        if any(self._left()):",
        "        if False:",
    ),
    Mutant(
        "drivers: a search begins when the one before has ended",
        "tune_ssl/drivers.py",
        "        while not self.draining and (opened",
        "        while not self.draining and not self.open and (opened",
    ),
    Mutant(
        "drivers: all are opened at once",
        "tune_ssl/drivers.py",
        "        yield from list(self.open)\n",
        "        while self.open_next():\n            pass\n        yield from list(self.open)\n",
    ),
    Mutant(
        "drivers: a report goes to the first",
        "tune_ssl/drivers.py",
        "next((driver for driver in self.open if driver.storage_root == task.storage), None)",
        "next(iter(self.open), None)",
    ),
    Mutant(
        "drivers: device time of one ends all",
        "tune_ssl/drivers.py",
        "if driver.draining and not driver.used_up:",
        "if driver.draining:",
    ),
    Mutant(
        "drivers: one without hope ends alone",
        "tune_ssl/drivers.py",
        "if driver.draining and not driver.used_up:",
        "if False:",
    ),
    Mutant(
        "drivers: a signal opens the next",
        "tune_ssl/drivers.py",
        "        while not self.draining and (opened",
        "        while (opened",
    ),
    Mutant(
        "drivers: finished while one is still to come",
        "tune_ssl/drivers.py",
        "return self._coming is None and all(",
        "return all(",
    ),
    Mutant(
        "drivers: one that cannot be closed leaves the others open",
        "tune_ssl/drivers.py",
        "            for driver in reversed(self.open):\n                stack.callback(self._end, driver, reason)",
        "            for driver in list(self.open):\n                self._end(driver, reason)",
    ),
    Mutant(
        "study: a retraining without a result is given up",
        "tune_ssl/study.py",
        "if not self.all_needed:",
        "if True:",
    ),
    Mutant(
        "driver: waits for a trial that is held",
        "tune_ssl/driver.py",
        "self.counts().finished + len(self.study.missing) >= self.study.trials",
        "self.counts().finished >= self.study.trials",
    ),
    Mutant(
        "study: a trial that a lost driver counted out stays held",
        "tune_ssl/study.py",
        "if self.get_trial(number).state == TrialState.RUNNING:  # this was",
        "if False:  # this was",
    ),
    Mutant(
        "study: a held trial is told as running",
        "tune_ssl/study.py",
        "begun and why_held(trial) is None",
        "begun",
    ),
    Mutant(
        "study: a trial that is tried again is told as held",
        "tune_ssl/study.py",
        'return reason if held["attempt"] == trial.system_attrs.get(ATTEMPT) else None',
        "return reason",
    ),
    Mutant(
        "scheduler: a worker that hangs is given to another run's trial",
        "tune_ssl/on_ray/scheduler.py",
        "            if self._drivers.draining:\n                tune_controller.stop_trial",
        "            if True:\n                tune_controller.stop_trial",
    ),
    Mutant(
        "driving: what cannot be opened ends the others where they stand",
        "tune_ssl/workflows/driving.py",
        "                except (UserError, StoppedError, JournalWriteError, OSError) as error:",
        "                except ZeroDivisionError as error:",
    ),
    Mutant(
        "driving: what cannot be opened is not told",
        "tune_ssl/workflows/driving.py",
        "            if refused:\n",
        "            if False:\n",
    ),
    Mutant(
        "drivers: a signal while the next is opened is lost",
        "tune_ssl/drivers.py",
        "        if self.draining:\n            driver.drain(self.draining)\n        return driver",
        "        return driver",
    ),
    Mutant(
        "compare: cells of different machines are driven as one",
        "tune_ssl/workflows/compare.py",
        "if _of_the_machine(config) != decided:",
        "if False:",
    ),
    Mutant(
        "compare: a signal after the last search is leave to retrain",
        "tune_ssl/workflows/compare.py",
        "        if why is not None:\n            return self._stop",
        "        if why is not None and any(self._left()):\n            return self._stop",
    ),
    Mutant(
        "retrain: others are trained beside one that was given up",
        "tune_ssl/workflows/retrain.py",
        "    if not fresh:\n        _refuse_holes",
        "    if False:\n        _refuse_holes",
    ),
    Mutant(
        "driver: lack of memory is a retraining's end",
        "tune_ssl/driver.py",
        "            if self.study.all_needed:\n                return self._failed",
        "            if False:\n                return self._failed",
    ),
    Mutant(
        "search size: drawn with replacement",
        "tune_ssl/statistics/search_size.py",
        "at_most = none_drawn(len(raised) - places, len(raised), drawn)",
        "at_most = (places / len(raised)) ** drawn",
    ),
    Mutant(
        "search size: a tie is lost by the default",
        "tune_ssl/statistics/search_size.py",
        "(values[:, ~default] > best)",
        "(values[:, ~default] >= best)",
    ),
    Mutant(
        "search size: defaults are drawn like others",
        "tune_ssl/statistics/search_size.py",
        "drawn = size - int(default.sum())",
        "drawn = size",
    ),
    Mutant(
        "search size: first keeps no order",
        "tune_ssl/statistics/search_size.py",
        "_better(judged[:, :size], default[:size])",
        "_better(judged, default)",
    ),
    Mutant(
        "importance: duplicates have dummies of their own",
        "tune_ssl/statistics/importance.py",
        "np.column_stack([table, generator.random(count)])[rows]",
        "np.column_stack([table[rows], generator.random(len(rows))])",
    ),
    Mutant(
        "importance: above the dummy's median is enough",
        "tune_ssl/statistics/importance.py",
        "np.quantile(shares[:, -1], 0.95)",
        "np.quantile(shares[:, -1], 0.5)",
    ),
    Mutant(
        "importance: values are not resampled with their trials",
        "tune_ssl/statistics/importance.py",
        "evaluate(with_dummy, observed[rows],",
        "evaluate(with_dummy, observed[: len(rows)],",
    ),
    Mutant(
        "flatness: the covariance with the best is left out",
        "tune_ssl/statistics/flatness.py",
        "own[center] + own - 2 * covariance[center]",
        "own[center] + own",
    ),
    Mutant(
        "flatness: a gap is jumped over",
        "tune_ssl/statistics/flatness.py",
        "while high < len(places) - 1 and holds[high + 1]:",
        "while high < len(places) - 1 and holds[high + 1 :].any():",
    ),
    Mutant(
        "flatness: sure and possible exchanged",
        "tune_ssl/statistics/flatness.py",
        "for level in (0.95, 0.5, 0.05)",
        "for level in (0.05, 0.5, 0.95)",
    ),
    Mutant(
        "flatness: known noise is ignored",
        "tune_ssl/statistics/flatness.py",
        "alpha=1e-8 + noise)",
        "alpha=1e-8)",
    ),
    Mutant(
        "flatness: a line may fall",
        "tune_ssl/statistics/flatness.py",
        "slope = min(1.0, max(0.0, slope))",
        "slope = min(1.0, slope)",
    ),
    Mutant(
        "report: only complete trials have an importance",
        "tune_ssl/analysis.py",
        "measured = [trial for trial in trials if first_rung in trial.intermediate_values]",
        "measured = [trial for trial in trials if trial.state == TrialState.COMPLETE]",
    ),
    Mutant(
        "report: log ranges are read as they are",
        "tune_ssl/analysis.py",
        "return float(low * (high / low) ** place)",
        "return float(low + place * (high - low))",
    ),
    Mutant(
        "report: a page does not escape",
        "tune_ssl/views/report.py",
        "title = escape(f\"tune-ssl report: {result['run']}\")",
        "title = f\"tune-ssl report: {result['run']}\"",
    ),
    Mutant(
        "compiled-probing",
        "ssl_core/training/compiled.py",
        "network(images) if images.requires_grad else whole(images)",
        "whole(images)",
    ),
    Mutant(
        "compiled-by-all-cores",
        "ssl_core/training/compiled.py",
        "config.compile_threads = threads",
        "config.compile_threads = 1",
    ),
    Mutant(
        "compiled-teacher-is-the-student",
        "ssl_core/training/step.py",
        "self._teacher_pass = compiled(self.ema.network, config.threads)",
        "self._teacher_pass = compiled(self.student, config.threads)",
    ),
    Mutant(
        "compiled-unasked",
        "ssl_core/training/step.py",
        "        if config.compile:\n",
        "        if True:\n",
    ),
    Mutant(
        "compiled-on-any-node",
        "tune_ssl/on_ray/nodes.py",
        "missing = missing_to_compile() if compiles else None",
        "missing = None",
    ),
    Mutant(
        "compiled-resumed-on-any-host",
        "tune_ssl/workflows/driving.py",
        "            check_compiler(job.settings.compile)\n",
        "            pass\n",
    ),
    Mutant(
        "compiled-another-comparison",
        "tune_ssl/run.py",
        '"published_from", "compile"),',
        '"published_from"),',
    ),
)


def main(words: list[str]) -> int:
    """Run the mutants whose name contains one of the words, or all; return the exit code."""
    mutants = [m for m in MUTANTS if not words or any(word in m.name for word in words)]
    not_once = [m.name for m in mutants if occurrences(m) != 1]
    for name in not_once:
        print(f"the text of {name!r} does not occur exactly once")
    mutants = [m for m in mutants if m.name not in not_once]
    failing = failures_without_a_mutant(mutants)
    for test in failing:
        print(f"left out, because it fails without a mutant: {test}")

    width = max((len(m.name) for m in mutants), default=0)
    unnoticed = len(not_once)
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        for mutant, found in zip(
            mutants, workers.map(lambda m: fate(m, failing), mutants), strict=True
        ):
            print(f"{mutant.name:<{width}}  {found or 'SURVIVED'}", flush=True)
            unnoticed += found is None
    print(f"{len(mutants) + len(not_once)} mutants, {unnoticed} not caught")
    return 1 if unnoticed else 0


def occurrences(mutant: Mutant) -> int:
    """Return how often the text to be replaced occurs in its file."""
    return (REPOSITORY / mutant.file).read_text().count(mutant.old)


def failures_without_a_mutant(mutants: list[Mutant]) -> list[str]:
    """Return the tests that fail as things are: they can catch nothing."""
    tests = sorted({test for mutant in mutants for test in TESTS[mutant.file]})
    with tempfile.TemporaryDirectory() as folder:
        copy_to(Path(folder))
        return failed_tests(run_tests(Path(folder), *tests)) if tests else []


def fate(mutant: Mutant, failing: list[str]) -> str | None:
    """Return the first test that fails with the mutant, or None if all pass."""
    with tempfile.TemporaryDirectory() as folder:
        copy_to(Path(folder))
        path = Path(folder) / mutant.file
        path.write_text(path.read_text().replace(mutant.old, mutant.new))
        left_out = [argument for test in failing for argument in ("--deselect", test)]
        output = run_tests(Path(folder), "--exitfirst", *left_out, *TESTS[mutant.file])
    return next(iter(failed_tests(output)), None)


def copy_to(folder: Path) -> None:
    """Copy packages and tests, and make sure that the copies are what is imported there."""
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    code = f"for name in {PACKAGES!r}: print(__import__(name).__file__)"
    for line in python(folder, "-c", code).stdout.split():
        if not Path(line).resolve().is_relative_to(folder.resolve()):
            raise RuntimeError(f"{line} is imported instead of the copy in {folder}")


def run_tests(folder: Path, *arguments: str) -> str:
    """Run pytest in the copy and return what it printed; raise if it could not run the tests."""
    options = ("-q", "--tb=no", "--no-header", "-p", "no:cacheprovider")
    result = python(folder, "-m", "pytest", *options, *arguments)
    if result.returncode not in (0, 1):
        raise RuntimeError(f"pytest did not run ({result.returncode}):\n{result.stdout}")
    return result.stdout


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with that folder first on its path and no bytecode left behind."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def failed_tests(output: str) -> list[str]:
    """Return the tests that pytest's summary names as failed."""
    return re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
