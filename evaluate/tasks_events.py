"""Tasks whose target is a class for each trial, on recordings of the mirror."""

from __future__ import annotations

from neurofmx.evaluate.spec import Chosen, Phase, TaskSpec
from neurofmx.tokenize.targets import TargetSpec

SPIKES = {"spikes": "spikes"}
CLASSIFIERS = ("lda", "logistic")
TIMED = ("lda", "logistic", "lda_time")
PSEUDO = "pseudo-population: sites never fired together, so nothing follows about correlations or dynamics"
SPLICED = "artificial clock: recordings laid end to end, so nothing follows about drift or order"
CUE = "the cue is not the movement: windows begin 0.6 s after it"
SLICES = "spikes exist in 0.4 s slices after the stimulus only"
UNITS_BY_DAY = "units differ between days: each session has a decoder of its own"
CONTRAST = "mice mostly choose the side of higher contrast: judge against the control, not against chance"
DURING = "the window holds the movement: no claim before movement"
TINY_EEG = "45 trials of one person: the binomial deviation is .07"
TWICE = "every gaze recording is there twice, by two coders: one is used, split by subject"
ISOSBESTIC = "the isosbestic channel decodes too: movement or blood may explain the score"


def _dandi(dataset: str, *names: str) -> Chosen:
    return Chosen(archives=("dandi",), datasets=(dataset,), names=names)


def _objects(name: str, column: str, classes: tuple[str, ...], question: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        question=question,
        where=_dandi("900002"),
        inputs=SPIKES,
        bin_s=0.05,
        target=TargetSpec(
            kind="class", stream="trials", column=column, classes=classes, align="stimulus_onset", offset_s=0.1,
            duration_s=0.3, group="repetition",
        ),
        split="trial_groups",
        n_folds=5,
        metric="accuracy",
        unit="repetition",
        baselines=CLASSIFIERS,
        caveats=(PSEUDO, "trials of a site keep their own order: repetition k is not one time"),
    )  # fmt: skip


_GESTURE = TargetSpec(
    kind="class", stream="trials", column="movement", offset_s=0.6, duration_s=0.2, repeats=9, step_s=0.2,
    group="repetition",
)  # fmt: skip


def _choice(
    name: str, question: str, column: str, *caveats: str, minus: str = "", controls: tuple[str, ...] = ()
) -> TaskSpec:
    return TaskSpec(
        name=name,
        question=question,
        where=_dandi("900008"),
        inputs=SPIKES,
        bin_s=0.05,
        target=TargetSpec(
            kind="class", stream="trials", column=column, minus=minus, classes=("-1", "1"),
            align="visual_stimulus_time", offset_s=0.05, duration_s=0.35,
        ),
        n_blocks=5,
        n_folds=5,
        metric="auroc",
        unit="recording",
        baselines=CLASSIFIERS,
        controls=controls,
        caveats=(SLICES, UNITS_BY_DAY, *caveats),
    )  # fmt: skip


CONTRASTS = ("visual_stimulus_left_contrast", "visual_stimulus_right_contrast")


def _motor(name: str, question: str, runs: tuple[str, ...]) -> TaskSpec:
    return TaskSpec(
        name=name,
        question=question,
        where=Chosen(archives=("physionet",), datasets=("eegmmidb",), names=runs, at_least=3),
        inputs={"eeg": "eeg_bands", "eeg_raw": "eeg_raw"},
        bin_s=0.1,
        target=TargetSpec(
            kind="class", stream="trials", column="label", classes=("T1", "T2"), offset_s=0.5, duration_s=2.0
        ),
        split="recordings",
        n_folds=MOTOR_FOLDS,
        standardise=True,
        metric="balanced_accuracy",
        unit="recording",
        baselines=(*CLASSIFIERS, "csp_lda", "tangent"),
        caveats=(TINY_EEG,),
    )


MOTOR_FOLDS = 8  # 3 runs a task and subject: hashed into so many folds, those known today fall into three
ROWS = (
    _objects(
        "it-object", "object", ("car", "couch", "face", "flower", "guitar", "hand", "kiwi"),
        "Do inferotemporal sites tell which of seven objects is seen?",
    ),
    _objects(
        "it-position", "position", ("lower", "middle", "upper"), "Do inferotemporal sites tell where the object is?"
    ),
    TaskSpec(
        name="emg-gesture-repetition",
        question="Do four EMG channels tell ten gestures, in repetitions of the same person that were not seen?",
        where=_dandi("900003"),
        inputs={"emg": "emg_features"},
        bin_s=0.2,
        target=_GESTURE,
        split="trial_groups",
        n_folds=3,
        metric="balanced_accuracy",
        unit="recording",
        baselines=CLASSIFIERS,
        caveats=(SPLICED, CUE),
    ),
    TaskSpec(
        name="emg-gesture-subject",
        question="Do four EMG channels tell ten gestures of a person who was not seen?",
        where=Chosen(archives=("dandi",), datasets=("900003",), at_least=5),
        inputs={"emg": "emg_features"},
        bin_s=0.2,
        target=_GESTURE,
        split="recordings",
        group="subject_id",
        n_folds=5,
        standardise=True,
        metric="balanced_accuracy",
        unit="subject",
        baselines=CLASSIFIERS,
        caveats=(SPLICED, CUE, "inputs are z-scored per subject over the whole recording, without labels"),
    ),
    TaskSpec(
        name="cockroach-valve",
        question="Do antennal-lobe neurons tell the 2 s after the valve opened from the 2 s before?",
        where=_dandi("900006"),
        inputs=SPIKES,
        bin_s=0.25,
        target=TargetSpec(
            kind="class", stream="phases", column="phase", classes=("before", "after"), duration_s=2.0
        ),
        phases=(
            Phase(label="before", align="valve_open", offset_s=-2.0),
            Phase(label="after", align="valve_open", offset_s=0.0),
        ),
        phases_of="trials",
        n_blocks=5,
        n_folds=5,
        metric="balanced_accuracy",
        unit="recording",
        baselines=TIMED,
        caveats=("artificial clock: the real order of blocks is unknown",),
    ),
    TaskSpec(
        name="cockroach-odour",
        question="Do three antennal-lobe neurons tell three odours?",
        where=_dandi("900006", "*e060817*"),
        inputs=SPIKES,
        bin_s=0.25,
        target=TargetSpec(
            kind="class", stream="trials", column="odour",
            classes=("citronellal", "terpineol", "terpineol+citronellal"), align="valve_open", duration_s=2.0,
            group="source_trial",
        ),
        split="trial_groups",
        n_folds=5,
        metric="accuracy",
        unit="trial number",
        baselines=TIMED,
        caveats=("each odour is one block of 20 trials: drift and odour cannot be told apart", SPLICED),
    ),
    _choice(
        "steinmetz-stimulus-side", "Do units tell the side of higher contrast?", CONTRASTS[0], minus=CONTRASTS[1]
    ),
    _choice(
        "steinmetz-movement", "Do units tell an early wheel turn to the left from one to the right?", "early_move",
        CONTRAST, DURING, controls=CONTRASTS,
    ),
    _choice(
        "steinmetz-reward", "Do units tell, before it comes, whether the trial will be rewarded?", "feedback_type",
        CONTRAST, DURING, controls=CONTRASTS,
    ),
    TaskSpec(
        name="haxby-category",
        question="Do voxels of half a slice tell which of eight categories is seen?",
        where=Chosen(archives=("openneuro",), datasets=("ds900101",), at_least=3),
        inputs={"fmri": "fmri"},
        bin_s=2.5,
        target=TargetSpec(
            kind="class", stream="trials", column="trial_type",
            classes=("bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe"),
            duration_s=2.5, repeats=9, step_s=2.5,
        ),
        split="recordings",
        n_folds=6,
        standardise=True,
        metric="balanced_accuracy",
        unit="recording",
        baselines=CLASSIFIERS,
        caveats=("labels act as if the haemodynamic delay were in them already: not shifted again",
                 "one slice of one person, runs z-scored without labels"),
    ),
    _motor("eeg-hands-feet-real", "Does EEG tell moved fists from moved feet?", ("*R05", "*R09", "*R13")),
    _motor("eeg-hands-feet-imagined", "Does EEG tell imagined fists from imagined feet?", ("*R06", "*R10", "*R14")),
    TaskSpec(
        name="muse-p300",
        question="Does a four-channel headband tell targets from other stimuli?",
        where=Chosen(archives=("openneuro",), datasets=("ds900102",), names=("sub-01_*P300*",), at_least=3),
        inputs={"eeg": "eeg_raw"},
        bin_s=0.05,
        target=TargetSpec(
            kind="class", stream="trials", column="trial_type", classes=("nontarget", "target"), offset_s=-0.1,
            duration_s=0.9,
        ),
        split="recordings",
        n_folds=6,
        standardise=True,
        metric="auroc",
        unit="recording",
        baselines=TIMED,
        caveats=("15 % targets: AUROC", "some runs clip at 1000 uV", "ids of two tasks may be the same people"),
    ),
    TaskSpec(
        name="gaze-saccade",
        question="Does gaze speed tell saccades from fixations of a person who was not seen?",
        where=Chosen(archives=("openneuro",), datasets=("ds900103",), names=("*MN_*",), at_least=5),
        inputs={"gaze": "gaze_speed"},
        bin_s=0.01,
        target=TargetSpec(
            kind="class", stream="trials", column="trial_type", classes=("fixation", "saccade"), offset_s=0.005,
            duration_s=0.02,
        ),
        split="recordings",
        group="subject_id",
        n_folds=5,
        metric="auroc",
        unit="subject",
        baselines=CLASSIFIERS,
        caveats=(TWICE,),
    ),
    TaskSpec(
        name="fnirs-tapping",
        question="Does optical density tell tapping from the rest before it?",
        where=Chosen(archives=("openneuro",), datasets=("ds900104",)),
        inputs={"fnirs": "fnirs"},
        bin_s=0.5,
        target=TargetSpec(kind="class", stream="phases", column="phase", classes=("rest", "tap"), duration_s=8.0),
        phases=(Phase(label="rest", align="start_s", offset_s=-8.0), Phase(label="tap", align="start_s", offset_s=4.0)),
        phases_of="trials",
        n_blocks=4,
        n_folds=4,
        metric="balanced_accuracy",
        baselines=TIMED,
        caveats=("24 windows a session of one person; nothing holds across its two sessions",),
    ),
    TaskSpec(
        name="photometry-reward",
        question="Does fibre photometry tell rewarded from unrewarded trials, from 0.5 s before to 2 s after feedback?",
        where=Chosen(archives=("ibl",)),
        inputs={"photometry": "photometry"},
        bin_s=0.1,
        target=TargetSpec(
            kind="class", stream="trials", column="feedbackType", classes=("-1", "1"), align="feedback_times",
            offset_s=-0.5, duration_s=2.5,
        ),
        n_blocks=5,
        n_folds=5,
        metric="auroc",
        baselines=TIMED,
        controls=("photometry_isosbestic",),
        caveats=(ISOSBESTIC,),
    ),
)  # fmt: skip
