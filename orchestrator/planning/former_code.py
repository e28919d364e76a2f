"""Names code that was written anew and trains bit for bit as before, so that its Runs stay done.

Digest of a module's code (`code_version.digest`) → digests of the code that it took the place of.
An entry ends with the next change of that code, or of code that it uses: a test then asks to remove
it. Add one only where the weights of a Run before and after are equal, bit for bit.
"""

FORMER: dict[str, tuple[str, ...]] = {
    # trainables.numerics.randomness
    "8e465bed0bda637df81b355f40f36a03b4bc1e9c4d0cb4c1861c16bea3ec245e": (
        "01a4740fc8875cd79221e62139b2d05d27d8025ca41cbc9af802ad2e87906db4",
    ),
    # trainables.numerics.seeds: of trainables.numerics.randomness
    "45e8f23349dc7f15ffe115575e39c87d5907050405bcbd341770cc433e808a0d": (
        "01a4740fc8875cd79221e62139b2d05d27d8025ca41cbc9af802ad2e87906db4",
    ),
    # orchestrator.execution.task: two seeds, which are equal by default
    "0b69ee7c7d6d0ab5a5de0272695ac5dfc70594704fd0bf95106ca63d767e5b91": (
        "0f3dab3b1a4a2abc119206a536348a29ec77d8319b20fb2f778fd2d0560d337b",
    ),
    # trainables.engine.loop: two seeds, which are equal by default
    "4f50f3e63ea29c85cf57174483838d2004bd8b66e0321b70439a13de13c51383": (
        "93cb6ac5235c810a3a487e7f9d8fdf27b720470a0344c79743799f7536b5ec20",
    ),
    # orchestrator.execution.worker: two seeds, which are equal by default
    "e51e24b56635d928ed6174f8d078b32db6c7173b292944c7f50910824d09a9e7": (
        "cc22e9992c2bc012e422cfd75864c9d9d5c603a6a56a60638e200a39c414bc0f",
    ),
    # trainables.training_config: backbones of own code, resnet34 and resnet101
    "43bb63f0f2f1b54e77a8b0326084d1de6c9ce58b382a7cb394f6e04c49b4388d": (
        "2d301762ab5d09eb224202968c768cd05dd0bace4c870a736c13a2adec349c41",
    ),
    # trainables.models.encoders: backbones of own code
    "10055aac1eac12cb5f890659657e4d1061c5aa2dfaa84c4da1477c0e58b9889f": (
        "a31f1c88901c07ee4ef848491721ecb264d5ed23ca55003d304d503f3a65cd75",
    ),
    # trainables.models.weights: weights of resnet34 and resnet101
    "1b44eebd87aca2704f5f5df047b21c7a3eb0280a40713165d11c32eb2f9ff58a": (
        "f9aaca9c7dbc603bf66acbc5ce2f4c6c597255f5002ca1bde75e13af83f41b50",
    ),
    # trainables.models.segmentation: slim encoders, which older studies do not name
    "5bcd110a7ead7dc98608cc8a02239e1c48989f8471143e3c2f801833c8797297": (
        "ebe42562db496deb93793b3347b9c98debae0325ad85b7fea54218908c3d64c6",
    ),
    # trainables.tasks.segment: slim encoders, which older studies do not name
    "76a89236fec1b2fad4ba792c9e12f2e55b9fcde9f1528f3b3bea9b065ebe5d0e": (
        "5062765bd5feca77b8bc0492786866d73da3d1f9f00ed84867a4351ed60c3f19",
    ),
    # trainables.schemas.segment: slim encoders, which older studies do not name
    "efd3f967850f3d8f05e96b7e019ba3280592065ea2f96e34745eb117522dfe28": (
        "d3893ff60c34ba63d49fd67f002d2ee958810cf1cca9f157b04d2bf55f4c04f1",
    ),
    # trainables.numerics.precision: devices without autocast
    "1ac35fba0667fb6251b5aef5992f402e2981ced02dc25494e9ccb10217b62268": (
        "586c691807b2533cc45fe3978ff8e19c88497026c6a2ee99da00025a983fed1e",
    ),
}
