"""Makes the pictures in this folder, and with Pillow and NumPy the frames that they must become.

Run with Pillow 13.0.0 and NumPy 2.4.6: `python make.py`.
The Rust tests compare their frames with these files.
"""

import pathlib

import numpy
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def photo(width: int, height: int) -> Image.Image:
    """Smooth areas, edges and noise."""
    y, x = numpy.mgrid[0:height, 0:width].astype(float)
    red = 255 * x / width
    green = 127 + 100 * numpy.sin(x / 7) * numpy.cos(y / 9)
    distance = numpy.hypot(x - width / 3, y - height / 2)
    blue = numpy.where(distance < height / 3, 230, 255 * y / height)
    noise = numpy.random.default_rng(1).normal(0, 6, (height, width, 3))
    return Image.fromarray(
        (numpy.stack([red, green, blue], 2) + noise).clip(0, 255).astype(numpy.uint8)
    )


def resized(picture: Image.Image, width: int, height: int, crop: float) -> Image.Image:
    """torchvision's Resize and CenterCrop for inputs of any proportions."""
    w, h = picture.size
    least_width, least_height = round(width / crop), round(height / crop)
    if w * least_height <= h * least_width:
        size = (least_width, least_width * h // w)
    else:
        size = (least_height * w // h, least_height)
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return picture.crop((left, top, left + width, top + height))


def normalized(picture: Image.Image, mean: list[float], std: list[float]) -> numpy.ndarray:
    """Values from 0 to 1, minus the mean, in standard deviations."""
    return ((numpy.asarray(picture) / 255.0 - mean) / std).astype(numpy.float32)


def save(name: str, frame: numpy.ndarray) -> None:
    """Saves a frame as an array of one frame."""
    numpy.save(HERE / f"{name}.npy", numpy.ascontiguousarray(frame[None]))


def main() -> None:
    """Makes all files."""
    wide = photo(90, 60)
    wide.save(HERE / "photo.png")
    wide.save(HERE / "photo.jpg", quality=92)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    wide.save(HERE / "turned.jpg", quality=92, exif=exif)
    wide.convert("L").save(HERE / "grey.png")
    deep = numpy.asarray(wide.convert("L")).astype(numpy.uint16) * 257 + 30
    Image.fromarray(deep.clip(0, 65535).astype(numpy.uint16)).save(HERE / "grey16.png")
    alpha = wide.copy()
    alpha.putalpha(wide.convert("L"))
    alpha.save(HERE / "alpha.png")
    wide.quantize(64).save(HERE / "palette.png")
    wide.convert("CMYK").save(HERE / "cmyk.jpg", quality=92)

    for name in [
        "photo.png",
        "photo.jpg",
        "turned.jpg",
        "grey.png",
        "alpha.png",
        "palette.png",
        "cmyk.jpg",
    ]:
        picture = ImageOps.exif_transpose(Image.open(HERE / name)).convert("RGB")
        frame = normalized(resized(picture, 32, 32, 0.875), MEAN, STD)
        save(name, frame.transpose(2, 0, 1))
    deep = numpy.asarray(Image.open(HERE / "grey16.png")).astype(int)
    picture = Image.fromarray(((deep + 128) // 257).astype(numpy.uint8)).convert("RGB")
    save("grey16.png", normalized(resized(picture, 32, 32, 0.875), MEAN, STD).transpose(2, 0, 1))

    picture = Image.open(HERE / "photo.png")
    # Another crop, proportions, order of the channels and layout.
    save("nhwc-bgr", normalized(resized(picture, 48, 20, 1.0), [0, 0, 0], [1, 1, 1])[:, :, ::-1])
    stretched = picture.resize((24, 40), Image.Resampling.BILINEAR)
    save("stretched", normalized(stretched, MEAN, STD).transpose(2, 0, 1))
    save("enlarged", numpy.asarray(resized(picture, 112, 112, 0.875)).transpose(2, 0, 1))
    grey = resized(picture, 28, 28, 0.875).convert("L")
    save("one-channel", normalized(grey, 0.1307, 0.3081)[None])


if __name__ == "__main__":
    main()
