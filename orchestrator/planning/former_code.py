"""Names code that was written anew and trains bit for bit as before, so that its Runs stay done.

Digest of a module's code (`code_version.digest`) → digests of the code that it took the place of.
An entry ends with the next change of that code, or of code that it uses: a test then asks to remove
it. Add one only where the weights of a Run before and after are equal, bit for bit.
"""

FORMER: dict[str, tuple[str, ...]] = {
    # trainables.numerics.seeds: of trainables.numerics.randomness
    "45e8f23349dc7f15ffe115575e39c87d5907050405bcbd341770cc433e808a0d": (
        "01a4740fc8875cd79221e62139b2d05d27d8025ca41cbc9af802ad2e87906db4",
    ),
    # trainables.numerics.precision: devices without autocast
    "1ac35fba0667fb6251b5aef5992f402e2981ced02dc25494e9ccb10217b62268": (
        "586c691807b2533cc45fe3978ff8e19c88497026c6a2ee99da00025a983fed1e",
    ),
    # trainables.training_config: backbones of own code, resnet34 and resnet101
    "fed4b5ba339a97b2dcff0c0b1c92367c3f3a3cc6d2eaa29f727afd31442bb9b2": (
        "2d301762ab5d09eb224202968c768cd05dd0bace4c870a736c13a2adec349c41",
    ),
    # trainables.schemas.trainable: networks by name beside ResNets
    "e402b5b0cac99ebb1987a5005f90d4c696f709fdc4c6411f57ed6661f0ba31f5": (
        "1992b6468136448215acbba786e5bb347e64f1a83b1016112a537d398d685f52",
    ),
    # trainables.schemas.segment: slim encoders, which older studies do not name
    "df5a19fef0ad04b397aa0ef0a7fec1618aa96857d7da63a956930cb73c32aeae": (
        "d3893ff60c34ba63d49fd67f002d2ee958810cf1cca9f157b04d2bf55f4c04f1",
    ),
    # trainables.networks.layers: networks by name beside ResNets
    "48d033767e7b37cb14d1f8ec174e932bfde24c61cadb9de34e90aa4ab22c6178": (
        "e9c65b038e624eccb1111e22a934100971435ef3debee6b0ed7fd9cc9e2e08a9",
    ),
    # trainables.networks.positions: networks by name beside ResNets
    "dca7451a58e6c5f2f881bcb6fd23fd6a184725160097031d3ada1d3a26e28f76": (
        "f9aaca9c7dbc603bf66acbc5ce2f4c6c597255f5002ca1bde75e13af83f41b50",
    ),
    # trainables.models.matching: networks by name beside ResNets
    "83e3f88ae6db6aa55ca7a91730aa23ceadac9eedb48c61aa7901c056d2ece862": (
        "80a50795584df8e8351d0b95cfccc72f56a2d49a0daee4487acb4aef5febc8f8",
    ),
    # trainables.models.stored_tensors: networks by name beside ResNets
    "8182b01b2513604827ddda862901fa22936183a1dba9b4a7e05c57024ba92ef3": (
        "f9aaca9c7dbc603bf66acbc5ce2f4c6c597255f5002ca1bde75e13af83f41b50",
    ),
    # trainables.models.weights: weights of resnet34 and resnet101
    "f5b96b66ac23f720597c10787961e2844cb06d9da4e711a3c17104f2f151a6b3": (
        "f9aaca9c7dbc603bf66acbc5ce2f4c6c597255f5002ca1bde75e13af83f41b50",
    ),
    # trainables.models.encoders: backbones of own code
    "cba82b55967cad6e4ed5d31511e5d1e5ac48b467323bd6c955e35de3984de1cc": (
        "a31f1c88901c07ee4ef848491721ecb264d5ed23ca55003d304d503f3a65cd75",
    ),
    # trainables.models.segmentation: slim encoders, which older studies do not name
    "222ff163e5f83228b3ebdb4ecab3c513ea1d39de42fc6a08eb8599fdf3fea55f": (
        "ebe42562db496deb93793b3347b9c98debae0325ad85b7fea54218908c3d64c6",
    ),
    # trainables.tasks.classify: networks by name beside ResNets
    "cc00808a5c47169e827c3b53ad00f15212b3006a4b7f1fdb42e42ad008865f8a": (
        "a02bccabcbc106465106f744f4ab27bb949469078318dc2d7f85b03c18cc8bd2",
    ),
    # trainables.tasks.rotation: networks by name beside ResNets
    "a80295135ea27b77b285284ea5b62ec5bf38816bbfeea14d343a12177543e7c3": (
        "b626c8172844df646537c878f310f6454a24c92ddfa27ffded0c412db8c97cd5",
    ),
    # trainables.tasks.segment: slim encoders, which older studies do not name
    "076d0947a69358fa8a17800091d23c5e34942f2718c1b8a6881e74d9c61cfbdb": (
        "5062765bd5feca77b8bc0492786866d73da3d1f9f00ed84867a4351ed60c3f19",
    ),
    # orchestrator.execution.worker: two seeds, equal by default; a copy in a store
    "8ecf12c10f54813467dd995ee861b1c77a6d7204894a74b7e012dcad30de39be": (
        "cc22e9992c2bc012e422cfd75864c9d9d5c603a6a56a60638e200a39c414bc0f",
    ),
    # orchestrator.execution.task: two seeds, equal by default; a store
    "7ec973896db2440ab3dd23b1c25119f900ef7e9f7a9bd29100d063d0cb3833e2": (
        "0f3dab3b1a4a2abc119206a536348a29ec77d8319b20fb2f778fd2d0560d337b",
    ),
    # orchestrator.execution.batch_worker: a copy in a store
    "b4c2b086285892b724154cb3789cc35b6dba77f4d744c0ed5e893386d508e0dd": (
        "880a642a170df5489d9fbe12e16d2d7abb04f0bbfd65bd0b772d220fb288c77d",
    ),
    # trainables.models.modules: the average of all weights in few operations
    "8bf4b165bea74698bd455115107809b5664de51f52d2a7b34dead5ec55116642": (
        "1b61dd5f3d7e2e4017abfd3f24649fd3408a9f99a607ef1a6c2b0e52f16abb36",
    ),
    # trainables.monitoring.iou: counts without an index by a mask
    "4cb8df2230a3698f33c930919411102aabed26646aea807830bb6a109feb0f70": (
        "5d4f60230da1c7bc3b5ee73ab3d757804aa80bff96be9e082f6e9ac94f72091e",
    ),
    # trainables.numerics.pass_counts: of trainables.engine.loop; BatchNorm counted itself
    "407c578c441d4a67fb55d0c82824e2a4cdd9f229d478e710165068659a2d5c8f": (
        "93cb6ac5235c810a3a487e7f9d8fdf27b720470a0344c79743799f7536b5ec20",
    ),
    # trainables.numerics.randomness: what tells draws apart is made once
    "949050932b77b6d231f444f3c858bb4b21d8f4acf0ba695d801611d835003bd6": (
        "01a4740fc8875cd79221e62139b2d05d27d8025ca41cbc9af802ad2e87906db4",
    ),
    # trainables.optimizers.lars: all tensors in few operations
    "202bcd3f20d47910fc9a558154cb31d213775cff856ef6ed0d0a7cfd124591b0": (
        "02fa33565623fa231d8d5c09f4c903b8f68cd4a476252003360df2b8cd924394",
    ),
    # trainables.transforms.color: a GPU jitters all images at once; equal on a CPU
    "42ba061d56db1443000181b7e55c5210362910215a2ffa54d90d584efc89d79b": (
        "74f6cf4a4ae6cff21b69ff3efe70af0a0ce4e3ac97d2842110c057ae8d045ad2",
    ),
    # trainables.transforms.geometry: the place of a crop in fewer operations
    "ea961b5945b4e0dd9544b4fdc52c7d4a3e355743955a0522d25f6849eeb55aff": (
        "44f8d533c1186d829b3ad05c19a30f094d9ed94dcd833399d592c6b6ce711dbc",
    ),
    # trainables.trainable: a count that is not copied to the device
    "102d3e2b1aef246b06565b192c9d260b4ed1608d3c96ffd6563fef9b614842ad": (
        "f2bdde40ef99c36206e986d568f5f11503ccdb653dcc2fae43287cd6487021b5",
    ),
    # trainables.transforms.views: a GPU makes both views at once; equal on a CPU
    "b811c96e2771a5f956e283bb5afbced2679b3b5321a151d4a81cd422abed56b2": (
        "19e51b1bfec82195a3de408e2cc005ce8cc0c21eab44d49abcd11fa4c52de751",
    ),
    # trainables.engine.step: clips in few operations; the device decides what is fused
    "e45501cd7a2d7a756244b2886635386aeb01d6bdcfa13eb28f55f0bdf5d0e3bc": (
        "57a10dbe517ac97e024f16065c327e0a9eb06dcdab3dfe5b970aafcb31da260a",
    ),
    # trainables.tasks.byol: both views at once
    "296b736a54f4bc7b01a10c1b7c68fe37e1170fd7f2bd59f246a565574f577c81": (
        "bb6248f7992ff8bbd04e91c3b4ddd71dc7f0d469916746b0bd64de4aaf13b9ca",
    ),
    # trainables.engine.loop: two seeds, which are equal by default; BatchNorm counts apart
    "4736c4855ace29b451d22a24e397f64ceca1416670f1f0ed20da4bda517e2395": (
        "93cb6ac5235c810a3a487e7f9d8fdf27b720470a0344c79743799f7536b5ec20",
    ),
    # trainables.numerics.reached_taps: of trainables.engine.loop; taps that saw padding alone had
    # gradients that nobody had computed, so no such weights could be repeated
    "2e1c6a3b6efcbccf1262c1c36db5fcbc80abc23da535987952c68d8451ed721f": (
        "93cb6ac5235c810a3a487e7f9d8fdf27b720470a0344c79743799f7536b5ec20",
    ),
}
