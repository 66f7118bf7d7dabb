/** SMILES that are expensive for a chemistry library. */

function ringNumber(number: number): string {
  return number < 10 ? String(number) : `%${number}`
}

/**
 * A sheet of aromatic hexagons, `width` by `height` atoms, without a Kekulé structure: the search takes long.
 */
export function aromaticSheet(width: number, height: number): string {
  const free: number[] = []
  const open = new Map<number, number>()
  let next = 1
  let smiles = ''
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const above = open.get(x)
      smiles += 'c'
      const isBonded = (x + y) % 2 === 0 && y + 1 < height
      const below = isBonded ? (free.shift() ?? next++) : undefined
      if (below !== undefined) smiles += ringNumber(below)
      if (above !== undefined) {
        smiles += ringNumber(above)
        free.push(above)
      }
      if (below === undefined) open.delete(x)
      else open.set(x, below)
    }
    if (y + 1 < height) smiles += '.'
  }
  return smiles
}
