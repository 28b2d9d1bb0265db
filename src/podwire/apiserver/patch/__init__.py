"""The four ways to change a part of an object: JSON patch, merge, strategic merge, server-side apply."""
