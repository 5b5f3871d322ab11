/** The topics of a deployment of its own: of one broker's worlds, none reads another's. */
export const topicsNamed = (prefix: string) => ({
  userActions: `${prefix}-actions`,
  candidateRequests: `${prefix}-requests`,
  erasures: `${prefix}-erasures`,
  userEmbeddings: `${prefix}-embeddings`,
  candidateScores: `${prefix}-scores`,
  deadLetters: `${prefix}-letters`,
});

/** With the optional topic that says what became of each action. */
export const topicsWithOutcomes = (prefix: string) => ({ ...topicsNamed(prefix), actionOutcomes: `${prefix}-outcomes` });
