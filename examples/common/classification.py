"""What the three image classifiers share: data, training, scores and the picture."""

import dataclasses

import keras
import numpy as np

from common import figures, image_batches, images, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationOptions(images.ImageOptions, training.TrainingOptions):
    """Images, and how models are normalized and trained."""

    label_smoothing: float = 0.0
    """How much of each label is spread over all classes."""


def load_data(options: ClassificationOptions) -> images.Images:
    """The images that the options name."""
    return images.load(options)


def train(model, data: images.Images, options: ClassificationOptions, callbacks=()):
    """Trains by cross-entropy; returns losses and accuracies of each epoch."""
    if not model.compiled:
        compile_model(model, data, options)
    batches = image_batches.Batches(
        data.train, data, options.batch_size, options, seed=options.seed, workers=options.workers
    )
    # Training pictures are augmented, and batch statistics lag: a look from outside each epoch.
    return training.fit(
        model, batches, options, callbacks, validation_data=_plain(data.validation, data, options)
    )


def compile_model(model, data, options):
    """Sets optimizer, loss and accuracy."""
    loss, accuracy = keras.losses.SparseCategoricalCrossentropy(from_logits=True), "accuracy"
    if options.label_smoothing:
        loss = SmoothedCrossentropy(len(data.classes), options.label_smoothing)
    model.compile(
        training.optimizer(options, model),
        loss,
        metrics=[accuracy],
        steps_per_execution=options.steps_per_execution,
    )


@keras.saving.register_keras_serializable("keras_wcond_examples")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of logits with integer labels of which a part is spread over all classes.

    Args:
        classes: Integer.
        smoothing: That part.
    """

    def __init__(self, classes, smoothing, name="smoothed_crossentropy"):
        super().__init__(name=name)
        self.classes, self.smoothing = classes, smoothing

    def call(self, y_true, y_pred):
        y_true = keras.ops.one_hot(keras.ops.reshape(y_true, (-1,)), self.classes)
        return keras.losses.categorical_crossentropy(
            y_true, y_pred, from_logits=True, label_smoothing=self.smoothing
        )

    def get_config(self):
        return {"classes": self.classes, "smoothing": self.smoothing, "name": self.name}


def evaluate(model, data: images.Images, options: ClassificationOptions, part="test"):
    """Accuracy and loss on one part of the data."""
    scores = model.evaluate(_plain(getattr(data, part), data, options), verbose=0, return_dict=True)
    return {"accuracy": scores["accuracy"], "loss": scores["loss"]}


def draw(runs, data: images.Images, options: ClassificationOptions):
    """Curves of training, and the test images that the last model finds hardest."""
    figure, (losses, accuracies, samples) = figures.figure(3, width_ratios=(1, 1, 1.1))
    figures.draw_curves(losses, runs, "loss", "training loss", yscale="log")
    figures.draw_curves(accuracies, runs, "val_accuracy", "validation accuracy")
    name, run = list(runs.items())[-1]
    _draw_hardest(samples, run.model, data, options)
    title = f"hardest test images for\n{name}, and its mistakes"
    # Above what is written on the first row.
    samples.set_title(title, fontsize=9, pad=14)
    return figure


def _draw_hardest(axes, model, data, options, side=6):
    """The test images, of the first thousand, to whose class the model gives the least odds."""
    pixels, labels = image_batches.Batches(data.test, data, 1000, options)[0]
    logits = keras.ops.convert_to_tensor(training.predict(model, pixels, 1000))
    odds = keras.ops.convert_to_numpy(keras.ops.log_softmax(logits))
    hardest = np.argsort(odds[np.arange(len(labels)), labels])[: side * side]
    predictions = odds.argmax(axis=-1)
    pictures = np.clip(pixels * data.deviation + data.mean, 0, 255).astype("uint8")
    height, width, channels = data.shape
    cell = max(height, width) + max(height // 4, 1)
    sheet = np.full((side * cell, side * cell, 3), 255, "uint8")
    axes.set_axis_off()
    for place, index in enumerate(hardest):
        top, left = (place // side) * cell, (place % side) * cell
        picture = pictures[index]
        colors = picture if channels == 3 else np.repeat(picture, 3, axis=-1)
        sheet[top : top + height, left : left + width] = colors
        if predictions[index] != labels[index]:
            axes.add_patch(_frame(left, top, width, height))
            name = data.classes[predictions[index]]
            axes.text(left, top - 0.5, name, color="tab:red", fontsize=6.5, va="bottom")
    axes.imshow(sheet)


def _frame(left, top, width, height):
    from matplotlib import patches

    return patches.Rectangle(
        (left - 0.5, top - 0.5), width, height, fill=False, edgecolor="tab:red", linewidth=1.5
    )


def _plain(part, data, options):
    batch_size = max(options.batch_size, 250)
    return image_batches.Batches(part, data, batch_size, options, workers=options.workers)
