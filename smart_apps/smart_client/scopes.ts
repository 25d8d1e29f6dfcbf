/** What the granted scopes let a person do. https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html */

const SCOPE = /^user\/(\*|[A-Za-z]+)\.c?r?u?d?(s?)(?:\?.*)?$/;

/** Whether resources of a type may be searched with the scopes that a token response names. */
export function maySearch(scope: string, type: string): boolean {
  return scope.split(" ").some((one) => {
    const [, of, search] = SCOPE.exec(one) ?? [];
    return Boolean(search) && (of === "*" || of === type);
  });
}
