// Asks the browser for a passkey and sends what it answers as a form. W3C Web Authentication Level 3, section 5.1.
// The options stand in the page (data-options), so that nothing is fetched.
"use strict";
(() => {
  const form = document.querySelector("form[data-ceremony]");
  const note = form.querySelector("[role=status]");
  const button = form.querySelector("button");

  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const withBytes = (list) => (list || []).map((item) => ({ ...item, id: bytes(item.id) }));

  const asked = () => {
    const options = JSON.parse(form.dataset.options);
    options.challenge = bytes(options.challenge);
    if (options.user) options.user.id = bytes(options.user.id);
    if (options.excludeCredentials) options.excludeCredentials = withBytes(options.excludeCredentials);
    if (options.allowCredentials) options.allowCredentials = withBytes(options.allowCredentials);
    return { publicKey: options };
  };

  const answered = (credential) => {
    const from = credential.response;
    const response = { clientDataJSON: text(from.clientDataJSON) };
    if (form.dataset.ceremony === "create") {
      response.attestationObject = text(from.attestationObject);
      response.transports = from.getTransports ? from.getTransports() : [];
    } else {
      response.authenticatorData = text(from.authenticatorData);
      response.signature = text(from.signature);
      if (from.userHandle) response.userHandle = text(from.userHandle);
    }
    return JSON.stringify({
      id: credential.id,
      rawId: text(credential.rawId),
      type: credential.type,
      response,
      clientExtensionResults: {},
    });
  };

  if (!window.PublicKeyCredential) {
    note.textContent = form.dataset.unsupported;
    return;
  }
  button.disabled = false;
  if (form.dataset.ceremony === "get") button.focus();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    note.textContent = form.dataset.waiting;
    try {
      const credential = await navigator.credentials[form.dataset.ceremony](asked());
      form.elements.credential.value = answered(credential);
      form.submit();
    } catch {
      // Cancelled, timed out, or no passkey here: browsers do not say which, on purpose.
      note.textContent = form.dataset.cancelled;
      button.disabled = false;
    }
  });
})();
