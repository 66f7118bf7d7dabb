/**
 * Quantities of Kubernetes. Source:
 * https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
 */
const FACTORS: Record<string, number> = {
  ...{ '': 1, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 },
  ...{ Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60 },
}

/** Null if the text is not a quantity. */
export function quantity(value: string | number | undefined): number | null {
  if (value === undefined) return null
  const [, amount, suffix = ''] = String(value).match(/^(\d+(?:\.\d+)?)([A-Za-z]*)$/) ?? []
  const factor = FACTORS[suffix]
  return amount === undefined || factor === undefined ? null : Number(amount) * factor
}
