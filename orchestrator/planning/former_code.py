"""Names code that was written anew and trains bit for bit as before, so that its Runs stay done.

Digest of a module's code (`code_version.digest`) → digests of the code that it took the place of.
An entry ends with the next change of that code, or of code that it uses: a test then asks to remove
it. Add one only where the weights of a Run before and after are equal, bit for bit.
"""

FORMER: dict[str, tuple[str, ...]] = {
    # trainables.data.watched: of trainables.monitoring.watched_masks
    "c3a6a5b6f0a3a2888b6319a43d72827082483f2ee1b7976f599e6c7a105220a0": (
        "9ad69836a765ab1c8dc5520887aac8ac8e9708aafe299958b76898e8d5004417",
    ),
    # trainables.engine.loop
    "894e662ee159b13692f9f00ee40e68fe3d3b0cbc89c8dd8a721072eeac6b2989": (
        "484afa3c9ed3424b0624abf76567bfcef4a7c980e3a8c805a74553a8c495585e",
    ),
    # trainables.loading.batches
    "2e9017f9d35de926dd3ed1040af38836583bdd19ad25d214f6b8325747ee8e18": (
        "432343e02bbb623ea7b0c713c178d12e8e0883c462fdb2f66f5d9cb1a0d1cb17",
    ),
    # trainables.models.matching: of trainables.models.weights
    "6ada4e87e2d06797faafba52469a610f7ce31bc15c6cee7777a7c442d9570d7a": (
        "3f9ee4e76488d881822943cd8ab34f20adb11af1f401ac011cfbf47759acca25",
    ),
    # trainables.models.weights
    "fe3d6ddb2194134aee20edb2001e7d847ceb293a3a513d6d36b27876772bf8e7": (
        "3f9ee4e76488d881822943cd8ab34f20adb11af1f401ac011cfbf47759acca25",
    ),
    # trainables.numerics.randomness
    "8e465bed0bda637df81b355f40f36a03b4bc1e9c4d0cb4c1861c16bea3ec245e": (
        "01a4740fc8875cd79221e62139b2d05d27d8025ca41cbc9af802ad2e87906db4",
    ),
    # trainables.numerics.seeds: of trainables.numerics.randomness
    "45e8f23349dc7f15ffe115575e39c87d5907050405bcbd341770cc433e808a0d": (
        "01a4740fc8875cd79221e62139b2d05d27d8025ca41cbc9af802ad2e87906db4",
    ),
    # trainables.pixels.bands
    "51423dc72be87f535eedfbd9bea49c6f39ee37d9208fa39ec76bcabb09868509": (
        "2e3be910402d33602849222cded99c9ef6ca77a21e4682d9b3d25800e3cda480",
    ),
    # trainables.producer
    "1843ff4cfaa3d5826af02d4d3417fa79880c167ef91b8e9361d21f1809188c94": (
        "4c903006ea418fad1fac8072eec9fbdab91d1eab56a73c27ff086820c5a2bce6",
    ),
    # trainables.schemas.byol: of trainables.tasks.byol
    "6ec8a2b17b44631e8f4288f563bdb37b19a7fe84f360a6914cac2f2a5aebe0e5": (
        "becc337422abb4ce1100a9926aa02d2b31513f7720957b002054d3ae423d7a64",
    ),
    # trainables.schemas.classify: of trainables.tasks.classify
    "1da023025768675c561b503deceb07d7ef28c424d2c31d96c0b15209feb51770": (
        "216a7386b0381dab8c239d0d77aa7093b2de73fc67171de8b54b34296f981c4d",
    ),
    # trainables.schemas.producer: of trainables.producer
    "171e26c69e889a09c9ef85be0a51a6ea58104a7bac7a8e202077b4bfd660b82d": (
        "4c903006ea418fad1fac8072eec9fbdab91d1eab56a73c27ff086820c5a2bce6",
    ),
    # trainables.schemas.rotation: of trainables.tasks.rotation
    "1e1e24880c27f0e5ef1aa4670b3b510c6801d6c87446e77a8ae3bf12282949ef": (
        "bf6848630638302da7656045d6cd6522dc983bc7dee22ed9eace202d2ed138fb",
    ),
    # trainables.schemas.sam: of trainables.tasks.sam
    "53669337c0911eb29ed03bcf8e66ffa5882b43e4abc1dabdf6a750c05489edcc": (
        "87904ace4394dce6ee7b0693a998a8e27d17ea35fccb27bb2322af8509474244",
    ),
    # trainables.schemas.segment: of trainables.tasks.segment
    "b406ac277572350907243041ea661695fd6e9eb286b505c514c9fe8597956ed4": (
        "56697bbe4d199406cb25ade2096177aedf8ed5ac5b44dbab90e72e7c407648e7",
    ),
    # trainables.schemas.trainable: of trainables.trainable
    "ccc831f76a66b22e64a6b9f503925b929e246cd33dc8c007507d952299d2e9dd": (
        "9d0a030d1bc963a3f15e0359a14ac5e326051695eeb2742eaab9a61067ab24c2",
    ),
    # trainables.tasks.byol
    "e7863cc8d90043d60dd9ecc4ad794798c39a251e142f38c3e8f4a7d79086d539": (
        "becc337422abb4ce1100a9926aa02d2b31513f7720957b002054d3ae423d7a64",
    ),
    # trainables.tasks.classify
    "5c869eb08a56662cd50e4c19dbdde230d40e9d2b3ab08386eda077c7aedcd499": (
        "216a7386b0381dab8c239d0d77aa7093b2de73fc67171de8b54b34296f981c4d",
    ),
    # trainables.tasks.rotation
    "770c682954cde02202b4c15d388259c38c61ecb44c6689fd4aae3e00f60df624": (
        "bf6848630638302da7656045d6cd6522dc983bc7dee22ed9eace202d2ed138fb",
    ),
    # trainables.tasks.sam, which reaches less code than before
    "67590ee8f112134db3de3052ecb0274be355378cae810c6e098a86b13cfcde5b": (
        "87904ace4394dce6ee7b0693a998a8e27d17ea35fccb27bb2322af8509474244",
        "a17f06a719eab15e2cee8c9fd8de0ba522fb7d163342f3e18a8752866e608cc0",
        "94922c615483d279d5cf2fe9b188abd6dee8b79d41a6481337da5803cd73c406",
        "9d0a030d1bc963a3f15e0359a14ac5e326051695eeb2742eaab9a61067ab24c2",
        "6fbc9a0b3c5d83c15544b98543b74cda3145b5a7b6b2423d1038633d9b6da5a6",
        "f4cb0dc7923e8966431df154604a24e527fffb7ad413e4acecf257e9a2fe313a",
    ),
    # trainables.tasks.segment
    "e98206bfabdd75d273a9430b6a2e26d35e0d04258d87aec8c07e4d5e34e7fc4b": (
        "56697bbe4d199406cb25ade2096177aedf8ed5ac5b44dbab90e72e7c407648e7",
    ),
    # trainables.trainable
    "553be116b3e2e32e216ab3149833c1d1d1046fd6561c999329516fa70c829852": (
        "9d0a030d1bc963a3f15e0359a14ac5e326051695eeb2742eaab9a61067ab24c2",
    ),
    # trainables.training_config
    "cd4fb5dfba31ac76f88ca5968f2d20ec00000f6e0999d1beb50ae1ac3b06bdad": (
        "6fbc9a0b3c5d83c15544b98543b74cda3145b5a7b6b2423d1038633d9b6da5a6",
    ),
}
