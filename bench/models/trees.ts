/**
 * An ensemble of full binary trees: TreeEnsembleRegressor of ai.onnx.ml, with its weights in node attributes.
 */
import { type Chain, floatsAttribute, intAttribute, intsAttribute, stringsAttribute } from './chain.js'
import { createRandom } from './random.js'
import { TREE_FEATURES } from './recipes.js'

export interface Trees {
  readonly trees: number
  /** Decisions from the root to a leaf. */
  readonly depth: number
  readonly classes: number
}

export function addTrees(chain: Chain, { trees, depth, classes }: Trees): void {
  const random = createRandom(`${chain.seed}/trees`)
  const below = (limit: number) => Math.floor(random() * limit)
  const questions = 2 ** depth - 1
  const nodes = 2 * questions + 1
  const ints = {
    nodes_treeids: [] as number[],
    nodes_nodeids: [] as number[],
    nodes_featureids: [] as number[],
    nodes_truenodeids: [] as number[],
    nodes_falsenodeids: [] as number[],
    target_treeids: [] as number[],
    target_nodeids: [] as number[],
    target_ids: [] as number[],
  }
  const floats = { nodes_values: [] as number[], target_weights: [] as number[] }
  const modes: string[] = []
  for (let tree = 0; tree < trees; tree++) {
    for (let node = 0; node < nodes; node++) {
      // Nodes are numbered level by level, so the children of a node follow from its number.
      const isLeaf = node >= questions
      ints.nodes_treeids.push(tree)
      ints.nodes_nodeids.push(node)
      ints.nodes_featureids.push(isLeaf ? 0 : below(TREE_FEATURES))
      ints.nodes_truenodeids.push(isLeaf ? 0 : 2 * node + 1)
      ints.nodes_falsenodeids.push(isLeaf ? 0 : 2 * node + 2)
      floats.nodes_values.push(isLeaf ? 0 : random() * 2 - 1)
      modes.push(isLeaf ? 'LEAF' : 'BRANCH_LEQ')
      if (!isLeaf) continue
      ints.target_treeids.push(tree)
      ints.target_nodeids.push(node)
      ints.target_ids.push(below(classes))
      floats.target_weights.push(random() * 2 - 1)
    }
  }
  chain.add({
    opType: 'TreeEnsembleRegressor',
    domain: 'ai.onnx.ml',
    attributes: [
      intAttribute('n_targets', classes),
      ...Object.entries(ints).map(([name, values]) => intsAttribute(name, values)),
      ...Object.entries(floats).map(([name, values]) => floatsAttribute(name, values)),
      stringsAttribute('nodes_modes', modes),
    ],
  })
}
