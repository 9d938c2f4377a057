"""What the project is made of: its environments, their pins, licences of all packages."""
