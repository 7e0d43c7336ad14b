"""What MLPerf's subset of OpenImages v6 is, and where it comes from: facts alone.

Sources: mlcommons/training, single_stage_detector, README.md (counts, sizes, folders), scripts/download_openimages_mlperf.sh
(the classes) and scripts/download_backbone.sh (the digest); the addresses are those of the OpenImages site, under
https://storage.googleapis.com/openimages/web/download.html.
"""

from __future__ import annotations

from dataclasses import dataclass

# In this order, which is the alphabet's, they have the ids 0 to 263 in the annotation files that the reference makes
MLPERF_CLASSES = tuple(
    """\
Airplane; Antelope; Apple; Backpack; Balloon; Banana; Barrel; Baseball bat; Baseball glove; Bee; Beer; Bench;
Bicycle; Bicycle helmet; Bicycle wheel; Billboard; Book; Bookcase; Boot; Bottle; Bowl; Bowling equipment; Box; Boy;
Brassiere; Bread; Broccoli; Bronze sculpture; Bull; Bus; Bust; Butterfly; Cabinetry; Cake; Camel; Camera; Candle;
Candy; Cannon; Canoe; Carrot; Cart; Castle; Cat; Cattle; Cello; Chair; Cheese; Chest of drawers; Chicken;
Christmas tree; Coat; Cocktail; Coffee; Coffee cup; Coffee table; Coin; Common sunflower; Computer keyboard;
Computer monitor; Convenience store; Cookie; Countertop; Cowboy hat; Crab; Crocodile; Cucumber; Cupboard; Curtain;
Deer; Desk; Dinosaur; Dog; Doll; Dolphin; Door; Dragonfly; Drawer; Dress; Drum; Duck; Eagle; Earrings; Egg (Food);
Elephant; Falcon; Fedora; Flag; Flowerpot; Football; Football helmet; Fork; Fountain; French fries; French horn;
Frog; Giraffe; Girl; Glasses; Goat; Goggles; Goldfish; Gondola; Goose; Grape; Grapefruit; Guitar; Hamburger; Handbag;
Harbor seal; Headphones; Helicopter; High heels; Hiking equipment; Horse; House; Houseplant; Human arm; Human beard;
Human body; Human ear; Human eye; Human face; Human foot; Human hair; Human hand; Human head; Human leg; Human mouth;
Human nose; Ice cream; Jacket; Jeans; Jellyfish; Juice; Kitchen & dining room table; Kite; Lamp; Lantern; Laptop;
Lavender (Plant); Lemon; Light bulb; Lighthouse; Lily; Lion; Lipstick; Lizard; Man; Maple; Microphone; Mirror;
Mixing bowl; Mobile phone; Monkey; Motorcycle; Muffin; Mug; Mule; Mushroom; Musical keyboard; Necklace; Nightstand;
Office building; Orange; Owl; Oyster; Paddle; Palm tree; Parachute; Parrot; Pen; Penguin; Personal flotation device;
Piano; Picture frame; Pig; Pillow; Pizza; Plate; Platter; Porch; Poster; Pumpkin; Rabbit; Rifle; Roller skates; Rose;
Salad; Sandal; Saucer; Saxophone; Scarf; Sea lion; Sea turtle; Sheep; Shelf; Shirt; Shorts; Shrimp; Sink; Skateboard;
Ski; Skull; Skyscraper; Snake; Sock; Sofa bed; Sparrow; Spider; Spoon; Sports uniform; Squirrel; Stairs; Stool;
Strawberry; Street light; Studio couch; Suit; Sun hat; Sunglasses; Surfboard; Sushi; Swan; Swimming pool; Swimwear;
Tank; Tap; Taxi; Tea; Teddy bear; Television; Tent; Tie; Tiger; Tin can; Tire; Toilet; Tomato; Tortoise; Tower;
Traffic light; Train; Tripod; Truck; Trumpet; Umbrella; Van; Vase; Vehicle registration plate; Violin; Wall clock;
Waste container; Watch; Whale; Wheel; Wheelchair; Whiteboard; Window; Wine; Wine glass; Woman; Zebra; Zucchini""".replace(
        "\n", " "
    ).split("; ")
)


@dataclass(frozen=True)
class Split:
    """One half: `name`/data/ID.jpg, and `name`/labels/ with the boxes as published and in COCO's form."""

    name: str
    images: int  # with a box, groups counted, of one of the classes
    boxes_url: str  # of all classes, as CSV

    @property
    def pictures(self) -> str:
        return f"{self.name}/data"

    @property
    def boxes(self) -> str:
        return f"{self.name}/labels/detections.csv"

    @property
    def annotations(self) -> str:
        return f"{self.name}/labels/openimages-mlperf.json"


@dataclass(frozen=True)
class Backbone:
    """torchvision's weights, IMAGENET1K_V1."""

    name: str
    url: str
    digest: str


@dataclass(frozen=True)
class OpenImages:
    """What a complete folder holds, and where it comes from."""

    name: str
    classes: tuple[str, ...]
    classes_url: str  # CSV: OpenImages' id of a class, its name
    pictures_url: str  # to which SPLIT/ID.jpg is added
    splits: tuple[Split, ...]
    backbone: Backbone
    picture_bytes: int  # of one, on average

    @property
    def images(self) -> int:
        return sum(split.images for split in self.splits)


STORAGE = "https://storage.googleapis.com/openimages"
OPENIMAGES_MLPERF = OpenImages(
    name="MLPerf's subset of OpenImages v6",
    classes=MLPERF_CLASSES,
    classes_url=f"{STORAGE}/v5/class-descriptions-boxable.csv",
    pictures_url="https://open-images-dataset.s3.amazonaws.com/",
    splits=(
        Split("train", 1_170_301, f"{STORAGE}/v6/oidv6-train-annotations-bbox.csv"),
        Split("validation", 24_781, f"{STORAGE}/v5/validation-annotations-bbox.csv"),
    ),
    backbone=Backbone(
        name="resnext50_32x4d-7cdf4587.pth",
        url="https://download.pytorch.org/models/resnext50_32x4d-7cdf4587.pth",
        digest=(
            "sha512:15c9f0bc1c8d64750712f86ffaded3b0bc6a87e77a395dcda3013d8af65b7eb"
            "f3ca1c24dd3aae60c0d83e510b4d27731f0526b6f9392c0a85ffc18e5fecd8a13"
        ),
    ),
    picture_bytes=294_540,  # 352 GB of 1,195,082
)
