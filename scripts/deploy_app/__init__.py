"""The bundle as a MONAI Deploy application: a DICOM study in, virtual DES objects out."""
