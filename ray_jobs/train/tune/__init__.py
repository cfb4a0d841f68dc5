"""The search for hyper-parameters: trials of the training job, the bad ones stopped early, the best one written out."""
