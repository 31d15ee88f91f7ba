"""Security updates of a distribution: what a bake never touches, and what came out since an image was made."""
