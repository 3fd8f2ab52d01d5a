if (typeof io === "undefined") {
  showProblem("The library socket.io-client is missing. Run npm install in this page's folder, serve it with npm run page, and reload.");
} else if (storedSession()) {
  enter(storedSession());
} else {
  showForm("login");
}
