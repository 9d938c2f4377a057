"""Virtual contrast enhancement for mammography: the components that the configs of this MONAI bundle name."""
