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
}
