/** Memory of a compilation, in multiples of the model's size: the bounds over all measured models. */
export const COMPILE_FACTORS = { least: 2, most: 5 } as const
