"""The elastic network that holds every subnet of a space: training, files, evaluation."""
