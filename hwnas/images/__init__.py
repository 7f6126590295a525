"""Images: readers of data sets, splits and augmentation."""
