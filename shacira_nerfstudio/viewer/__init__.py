"""Looking at a scene from its file alone: no data set, no Nerfstudio."""
