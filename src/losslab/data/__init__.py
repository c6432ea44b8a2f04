"""Data sets as LightningDataModules. Every batch is a function of (seed, epoch, batch number).

module.py has the base class, loader.py the loader, transforms.py augmentation and normalisation. Data sets: synthetic,
sklearn_datasets, cifar10, image_folder. corruption/ adds label noise, class imbalance and outliers on purpose.
"""
